"""What reading a trace costs: ours beside HTA and plain JSON decoders, in one run, every measurement in a fresh process."""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.reading import scale
from benchmarks.reading.children import CORPUS, ChildError, measured
from benchmarks.reading.sides import SIDES, Side
from benchmarks.reading.tables import FIELDS, by_file, targets

_TRACES: Final = (  # about 9, 35, 56 and 62 MB raw; nine tenths of the last are Python functions, which we leave out
    "tracelens/h100_qwen1.5_0.5b/Qwen_Qwen1.5-0.5B-Chat__1016005.json.gz",
    "hta/trace_diff/control.json.gz",
    "tracelens/h100_owlv2/google_owlv2-large-patch14-ensemble__1016001.json.gz",
    "tracelens/mi300x_flux_pair/before_aiter/profile_trace_rank_0.json.gz",
)
_REPEATED: Final = _TRACES[2]
_NOT_AT_HAND: Final = (
    "No single real trace of 87 MB is at hand: the largest here is about 64 MB. Files marked synthetic are a real one repeated."
)
_WHAT_IS_MEASURED: Final = (
    "CPU is user + system of the child after imports and after one reading of a tiny trace (their cost: start-up); wall is of "
    "the same span; memory is the peak of the resident size over the state before it. Ratios are formed within a round."
)


@dataclass(frozen=True, slots=True)
class File:
    """A trace to be read, with its size before compression."""

    path: Path
    title: str
    raw_bytes: int


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables; 1 only where a side failed."""
    chosen = _parser().parse_args(words)
    sides = [side for side in SIDES if not side.is_peer or chosen.peer_python]
    with tempfile.TemporaryDirectory(prefix="perfnb-reading-") as folder:
        files = _files(chosen.traces, Path(folder), chosen.scale_bytes)
        if not files:
            print(f"no trace to read: name some, or the corpus in PERFNB_CORPUS (now {CORPUS.name})")
            return 1
        tiny = Path(folder) / "tiny.json.gz"
        scale.write_tiny(tiny)
        rows, absent, failures = _rounds(files, sides, tiny, chosen.repeats, chosen.peer_python)
    if chosen.out:
        with chosen.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)
    print(_report(rows, sides, absent, failures, has_peer=bool(chosen.peer_python)))
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace_reading", description=__doc__)
    parser.add_argument("traces", nargs="*", type=Path, help="trace files; by default four of the corpus and a scale test")
    parser.add_argument("--peer-python", default="", help="interpreter of an environment with HTA (package traceinsight)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; in each, every side reads every file once")
    parser.add_argument("--scale-bytes", type=int, default=500_000_000, help="raw size of the synthetic trace; 0: none")
    parser.add_argument("--out", type=Path, help="CSV file with every single measurement")
    return parser


def _files(named: Sequence[Path], folder: Path, scale_bytes: int) -> list[File]:
    paths = list(named) or [CORPUS / "traces" / name for name in _TRACES if (CORPUS / "traces" / name).exists()]
    files = [File(path, path.name[:28], _raw_bytes(path)) for path in paths]
    if scale_bytes and files:
        repeated = CORPUS / "traces" / _REPEATED
        origin = scale.source(repeated if not named and repeated.exists() else paths[-1])
        one = len(origin.events)
        path = folder / "synthetic.json.gz"
        size = scale.write(origin, path, max(1, round(scale_bytes / one)))
        files.append(File(path, "synthetic (repeated in time)", size))
    return files


def _raw_bytes(path: Path) -> int:
    content = path.read_bytes()
    return len(gzip.decompress(content)) if content[:2] == b"\x1f\x8b" else len(content)


def _rounds(
    files: Sequence[File], sides: Sequence[Side], tiny: Path, repeats: int, peer_python: str
) -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    """Every measurement, sides interleaved; which sides are absent and why; what failed."""
    absent, failures = _probe(sides, tiny, peer_python)
    rows: list[dict[str, Any]] = []
    failed: set[tuple[str, str]] = set()
    for number in range(repeats):
        for file in files:
            for side in sides:
                if side.name in absent or (side.name, file.title) in failed:
                    continue
                try:
                    answer = _one(side, tiny, file.path, peer_python)
                except ChildError as error:
                    failed.add((side.name, file.title))
                    failures.append(f"{side.title} on {file.title}: {error}")
                    continue
                rows.append({"file": file.title, "raw_bytes": file.raw_bytes, "round": number, "side": side.name} | answer)
    return rows, absent, failures


def _probe(sides: Sequence[Side], tiny: Path, peer_python: str) -> tuple[dict[str, str], list[str]]:
    """Run each side once on the tiny trace: fills caches of compiled code, finds the absent ones."""
    absent: dict[str, str] = {}
    failures: list[str] = []
    for side in sides:
        try:
            _one(side, tiny, tiny, peer_python)
        except LookupError as error:
            absent[side.name] = str(error.args[0])
        except ChildError as error:
            absent[side.name] = f"failed on a trace of eight events ({error})"
            failures.append(f"{side.title}: {absent[side.name]}")
    return absent, failures


def _one(side: Side, tiny: Path, path: Path, peer_python: str) -> dict[str, Any]:
    python = peer_python if side.is_peer else sys.executable
    answer = measured("measured.py", [side.name, str(tiny), str(path)], python=python)
    if isinstance(answer, dict):
        return answer
    raise LookupError(answer)


def _report(
    rows: Sequence[dict[str, Any]], sides: Sequence[Side], absent: dict[str, str], failures: Sequence[str], *, has_peer: bool
) -> str:
    titles = {side.name: side.title for side in sides}
    lines = ["# Reading traces", "", by_file(rows, titles), "", "## Targets", "", targets(rows, titles), ""]
    lines += ["## What each side does in its load", ""]
    lines += [f"- {side.title}: {side.does}" for side in sides if side.name not in absent]
    lines += [f"- {titles[name]}: absent ({reason})" for name, reason in absent.items()]
    lines += [] if has_peer else ["- HTA: absent (no --peer-python)"]
    lines += [
        "",
        _WHAT_IS_MEASURED,
        _NOT_AT_HAND if any("synthetic" in str(row["file"]) for row in rows) else "",
    ]
    lines += [f"FAILED: {failure}" for failure in failures]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
