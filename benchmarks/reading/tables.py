"""Measurements of reading -> Markdown: a row per file and side, and which targets are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from benchmarks.reading.sides import LARGE_BYTES, TARGETS, Target

FIELDS: Final = (
    "file",
    "raw_bytes",
    "round",
    "side",
    "cpu_s",
    "wall_s",
    "peak_growth_bytes",
    "startup_cpu_s",
    "rows",
)
_PEERS: Final = ("hta", "json", "orjson")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratios(rows: Sequence[Mapping[str, Any]], file: str, side: str, peer: str) -> list[float]:
    """CPU of a side over a peer's CPU, once per round in which both were measured.

    Examples
    --------
    >>> one = {"file": "a", "round": 0, "side": "fast", "cpu_s": 1.0}
    >>> ratios([one, {**one, "side": "hta", "cpu_s": 8.0}], "a", "fast", "hta")
    [0.125]
    """
    cpu = {(row["round"], row["side"]): float(row["cpu_s"]) for row in rows if row["file"] == file}
    rounds = sorted({number for number, name in cpu if name == side and (number, peer) in cpu})
    return [cpu[number, side] / cpu[number, peer] for number in rounds]


def by_file(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """One row per file and side: CPU best and median, wall, memory, rows, and times faster than each peer (medians)."""
    if not rows:
        return "Nothing was measured."
    frame = pd.DataFrame(rows)
    found = []
    for (file, side), own in frame.groupby(["file", "side"], sort=False):
        raw = int(own["raw_bytes"].iloc[0])
        cells = [
            str(file),
            f"{raw / 1e6:.1f}",
            titles[str(side)],
            f"{own['cpu_s'].min():.3f}",
            f"{own['cpu_s'].median():.3f}",
            f"{own['wall_s'].median():.3f}",
            f"{own['peak_growth_bytes'].median() / 1e6:.0f}",
            f"{own['peak_growth_bytes'].median() / raw:.2f}",
            f"{own['startup_cpu_s'].median():.2f}",
            f"{int(own['rows'].iloc[0]):,}",
        ]
        for peer in _PEERS:
            shares = ratios(rows, str(file), str(side), peer) if side != peer else []
            cells.append(f"{1 / float(pd.Series(shares).median()):.1f}" if shares else "")
        found.append(cells)
    head = ["file", "raw MB", "side", "CPU s best", "CPU s median", "wall s median", "peak MB", "peak / raw", "start-up CPU s"]
    return markdown([*head, "rows kept", "x less CPU than HTA", "than json", "than orjson"], found)


def targets(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """One row per target and file: the bound, what was measured, met or not met."""
    files = {str(row["file"]): int(row["raw_bytes"]) for row in rows}
    found = []
    for target in TARGETS:
        what = f"CPU / {titles.get(target.peer, target.peer)}" if target.peer else "peak memory / raw"
        named = [file for file, raw in files.items() if target.sizes in ("all", "large" if raw >= LARGE_BYTES else "small")]
        for file in named:
            value = _measured(rows, file, target)
            verdict = "not measured" if value is None else "met" if value <= target.bound else "NOT MET"
            shown = "" if value is None else f"{value:.3f}"
            found.append([titles.get(target.side, target.side), what, file, f"<= {target.bound:.3f}", shown, verdict])
    return markdown(["side", "quantity (median)", "file", "target", "measured", "verdict"], found)


def _measured(rows: Sequence[Mapping[str, Any]], file: str, target: Target) -> float | None:
    if target.peer:
        values = ratios(rows, file, target.side, target.peer)
    else:
        own = [row for row in rows if row["file"] == file and row["side"] == target.side]
        values = [row["peak_growth_bytes"] / row["raw_bytes"] for row in own]
    return float(pd.Series(values).median()) if values else None
