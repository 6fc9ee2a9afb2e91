"""The files of a campaign: a line per unit, written at once, read back after a crash, and packed to be carried away."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

CAMPAIGN: Final = "campaign.json"
LINES: Final = "results.jsonl"
SUMMARY: Final = "summary.txt"
MOST_PACKED_BYTES: Final = 15 << 20
"""Of one packed file; a stage that has more leaves its largest traces out."""

FINAL: Final = ("ok", "needs CUDA", "failed", "timed out")
"""States of a unit that was run."""

AGAIN: Final = ("lacks a package", "skipped")
"""States of a unit that is run the next time."""


def append_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Write the result of a unit so that it is on disk when this returns."""
    path = folder / str(line["stage"]) / LINES
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Results of all stages, the last of each unit; torn lines are none."""
    for path in sorted(folder.glob(f"*/{LINES}")):
        last: dict[str, dict[str, Any]] = {}
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and {"stage", "unit", "state"} <= line.keys():
                last[line["unit"]] = line
        yield from last.values()


def finished(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Stage and unit to the result of those that need not run again."""
    return {(line["stage"], line["unit"]): line for line in lines(folder) if line["state"] in FINAL}


def pack(folder: Path, packed: Path, *, only: str | None = None) -> dict[str, list[str]]:
    """Write one archive per stage beside campaign.json and the summary: few files, none over `MOST_PACKED_BYTES`.

    Parameters
    ----------
    folder, packed
        The loose files, and where the archives go.
    only
        The stage that changed; all, where none is named.

    Returns
    -------
    dict
        Stage to the files that found no room.
    """
    packed.mkdir(parents=True, exist_ok=True)
    left_out: dict[str, list[str]] = {}
    for stage in sorted(path.parent for path in folder.glob(f"{only or '*'}/{LINES}")):
        found = [path for path in sorted(stage.rglob("*")) if path.is_file() and "logs" not in path.relative_to(stage).parts]
        kept, left = _fitting(stage, found)
        left_out |= {stage.name: left} if left else {}
        unfinished = packed / f".{stage.name}.tar.gz"
        with tarfile.open(unfinished, "w:gz", compresslevel=1) as archive:
            for path in kept:
                entry = tarfile.TarInfo(f"{stage.name}/{path.relative_to(stage).as_posix()}")
                content = path.read_bytes()
                entry.size = len(content)  # no owner, no time, no mode of this machine
                archive.addfile(entry, io.BytesIO(content))
        unfinished.replace(packed / f"{stage.name}.tar.gz")
    for name in (CAMPAIGN, SUMMARY):
        if (folder / name).exists():
            (packed / name).write_bytes((folder / name).read_bytes())
    return left_out


def _fitting(stage: Path, found: list[Path]) -> tuple[list[Path], list[str]]:
    """The files that fit, the smallest first, so that lines of results and tables come before traces."""
    kept, left, total = [], [], 0
    for path in sorted(found, key=lambda each: (each.name != LINES, each.stat().st_size)):
        total += path.stat().st_size + 1024
        if total <= MOST_PACKED_BYTES:
            kept.append(path)
        else:
            left.append(path.relative_to(stage).as_posix())
    return kept, left


def unpack(packed: Path, folder: Path) -> Path:
    """The loose files of a packed campaign, in a folder; a campaign that is loose already is given back as it is."""
    archives = sorted(packed.glob("*.tar.gz"))
    if not archives:
        return packed
    folder.mkdir(parents=True, exist_ok=True)
    for path in archives:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    for name in (CAMPAIGN, SUMMARY):
        if (packed / name).exists():
            (folder / name).write_bytes((packed / name).read_bytes())
    return folder


def table(folder: Path) -> str:
    """The results as text: a row per unit, then the counts per stage."""
    rows = sorted(lines(folder), key=lambda line: (line["stage"], line["unit"]))
    width = max((len(line["unit"]) for line in rows), default=4)
    head = f"{'stage':14} {'unit':{width}} {'state':15} {'s':>6}  result"
    text = [head, "-" * len(head)]
    for line in rows:
        said = line.get("error") or line.get("said") or ""
        row = f"{line['stage']:14} {line['unit']:{width}} {line['state']:15} {line['seconds']:6.1f}  {str(said)[:160]}"
        text.append(row.rstrip())
    for stage in dict.fromkeys(line["stage"] for line in rows):
        own = [line for line in rows if line["stage"] == stage]
        counts = {state: sum(line["state"] == state for line in own) for state in (*FINAL, *AGAIN)}
        shown = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        text.append(f"{stage}: {shown}; {sum(line['seconds'] for line in own):.0f} s")
    return "\n".join(text)
