"""Up to 64 ranks read and summarised in this process, in a pool of processes and on a Dask cluster: time, memory, linearity."""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.reading import scale
from benchmarks.reading.children import CORPUS, ChildError, measured
from benchmarks.reading.tables import markdown

_WAYS: Final = ("in-process", "process pool", "dask")
_LINEAR: Final = 1.3  # wall per rank at the most ranks over that at the fewest
_SAME_MEMORY: Final = 1.3  # peak of a worker at the most ranks over that at the fewest
_FIELDS: Final = (
    *("way", "ranks", "round", "wall_s", "cpu_s", "parent_growth_bytes", "worker_growth_bytes"),
    *("worker_peak_bytes", "digest", "api"),
)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table and the verdicts; 1 only where a way failed."""
    chosen = _parser().parse_args(words)
    origins = chosen.traces or sorted((CORPUS / "traces" / "param" / "dlrm_8rank").glob("*.json*"))
    if not origins:
        print("no trace to repeat: name some, or the corpus in PERFNB_CORPUS")
        return 1
    folder = Path(tempfile.mkdtemp(prefix="perfnb-ranks-"))
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    try:
        files, size = _made(origins, folder, max(chosen.ranks), chosen.raw_bytes)
        for number in range(chosen.repeats):
            for count in sorted(chosen.ranks):
                for way in chosen.ways:
                    try:
                        answer = measured("rank_job.py", [way, str(chosen.workers), *map(str, files[:count])])
                    except ChildError as error:
                        failures.append(f"{way}, {count} ranks: {error}")
                        continue
                    if isinstance(answer, dict):
                        rows.append({"way": way, "ranks": count, "round": number} | answer)
    finally:
        shutil.rmtree(folder)
    if chosen.out:
        with chosen.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, _FIELDS)
            writer.writeheader()
            writer.writerows(rows)
    print(
        f"# {max(chosen.ranks)} ranks of {size / 1e6:.1f} MB raw each, {len(origins)} real ranks repeated in time and renumbered"
    )
    print(f"(synthetic: groups of communication are those of the {len(origins)}); {chosen.workers} workers\n")
    print(_table(rows))
    for line in [*_verdicts(rows, chosen.ways), *(f"FAILED: {failure}" for failure in failures)]:
        print(f"- {line}")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace_ranks", description=__doc__)
    parser.add_argument("traces", nargs="*", type=Path, help="files of real ranks; by default the eight of dlrm_8rank")
    parser.add_argument("--ranks", type=int, nargs="*", default=[8, 16, 32, 64])
    parser.add_argument("--raw-bytes", type=int, default=10_000_000, help="of each rank's file, before compression")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ways", nargs="*", default=list(_WAYS), choices=_WAYS)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, help="CSV file with every single measurement")
    return parser


def _made(origins: Sequence[Path], folder: Path, count: int, raw_bytes: int) -> tuple[list[Path], float]:
    """Files of ranks, and their mean size before compression."""
    parts = [scale.source(path) for path in origins]
    files, sizes = [], []
    for rank in range(count):
        part = parts[rank % len(parts)]
        path = folder / f"rank_{rank}.json.gz"
        sizes.append(scale.write_rank(part, path, max(1, round(raw_bytes / len(part.events))), rank, count))
        files.append(path)
    return files, sum(sizes) / len(sizes)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    found = []
    for row in sorted(rows, key=lambda each: (_WAYS.index(each["way"]), each["ranks"], each["round"])):
        memory = [f"{row[key] / 1e6:.0f}" for key in ("parent_growth_bytes", "worker_growth_bytes", "worker_peak_bytes")]
        times = [f"{row['wall_s']:.2f}", f"{row['cpu_s']:.2f}", f"{1e3 * row['wall_s'] / row['ranks']:.0f}"]
        found.append([row["way"], str(row["ranks"]), *times, *memory, row["digest"]])
    head = [
        "way",
        "ranks",
        "wall s",
        "CPU s",
        "wall ms per rank",
        "parent grew MB",
        "largest worker grew MB",
        "its peak MB",
        "tables",
    ]
    return markdown(head, found) + (f"\n\nAPI: {rows[0]['api']}\n" if rows else "")


def _verdicts(rows: Sequence[dict[str, Any]], ways: Sequence[str]) -> list[str]:
    lines = []
    for way in ways:
        own = sorted((row for row in rows if row["way"] == way), key=lambda each: each["ranks"])
        if len({row["ranks"] for row in own}) > 1:
            few, many = own[0], own[-1]
            growth = (many["wall_s"] / many["ranks"]) / (few["wall_s"] / few["ranks"])
            verdict = "met" if growth <= _LINEAR else "NOT MET"
            lines.append(
                f"{way}: wall per rank at {many['ranks']} ranks is {growth:.2f} of that at {few['ranks']}: linear {verdict}"
            )
            if few["worker_peak_bytes"]:
                memory = many["worker_peak_bytes"] / few["worker_peak_bytes"]
                verdict = "met" if memory <= _SAME_MEMORY else "NOT MET"
                lines.append(
                    f"{way}: a worker's peak at {many['ranks']} ranks is {memory:.2f} of that at {few['ranks']}: {verdict}"
                )
    for count in sorted({row["ranks"] for row in rows}):
        digests = {row["digest"] for row in rows if row["ranks"] == count}
        lines.append(f"{count} ranks: tables of all ways {'equal' if len(digests) == 1 else 'DIFFER'}")
    largest = max((row["ranks"] for row in rows), default=0)
    walls = {row["way"]: row["wall_s"] for row in rows if row["ranks"] == largest}
    for way in ("process pool", "dask"):
        if way in walls and "in-process" in walls:
            faster = walls["in-process"] / walls[way]
            lines.append(
                f"{way}: {faster:.2f} x as fast as in-process: {'met' if faster > 1 else 'NOT MET'} (needs 2 free cores)"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
