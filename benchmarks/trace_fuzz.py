"""Damaged traces through the reader: only its own errors, no hang, no crash, no event lost without a word."""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.reading.fuzzing import Alarmed, Case, Limits, cases, damaged, save
from benchmarks.reading.seeds import handmade, of_corpus

_SAVED_PER_KIND = 5


def main(words: Sequence[str] | None = None) -> int:
    """Read damaged traces and print what came of them; 1 where something happened that must not."""
    chosen = _parser().parse_args(words)
    from benchmarks.reading.judge import parsers  # noqa: PLC0415 - `--help` does not import the reader

    seeds = [*handmade(), *([] if chosen.no_corpus else of_corpus())]
    tiers = parsers(chosen.parser)
    limits = Limits(chosen.seconds, chosen.memory_mb << 20)
    if chosen.replay is not None:
        return _replayed(seeds, chosen.seed, chosen.replay, tiers, limits)
    numbers = range(chosen.start, chosen.start + chosen.count)
    began = time.monotonic()
    done: Counter[str] = Counter()
    failures: list[tuple[Case, str, str]] = []
    checked = read = peak = 0
    for case in cases(seeds, chosen.seed, numbers, tiers, limits, chosen.workers):
        peak = max(peak, case.peak_growth_bytes)
        for kind, detail, is_failure, is_checked in case.outcomes:
            done[kind] += 1
            read += kind.startswith("read")
            checked += is_checked
            if is_failure:
                failures.append((case, kind, detail))
    print(
        f"{chosen.count:,} damaged traces, seed {chosen.seed}, from {len(seeds)} seed traces; tiers: {', '.join(tiers) or 'one'}"
    )
    for kind, count in done.most_common():
        print(f"  {count:9,}  {kind}")
    print(f"events read + reported compared with events present in {checked:,} of {read:,} runs that were read")
    print(f"largest growth of the resident size for one trace: {peak / 1e6:.0f} MB; {time.monotonic() - began:.0f} s")
    if failures:
        _saved(failures, seeds, chosen.seed, chosen.out)
        print(
            f"{len(failures):,} FAILURES in {len({kind for _, kind, _ in failures})} kinds; files and failures.csv: {chosen.out}"
        )
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace_fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument(
        "--parser", default="", help="one tier (msgspec, numba, auto); by default both, and their tables compared"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="limit on wall time per trace and tier")
    parser.add_argument("--memory-mb", type=int, default=1024, help="limit on address space beyond the reader at rest")
    parser.add_argument("--no-corpus", action="store_true", help="seed traces written by hand only")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "perfnb-fuzz", help="folder of failed cases")
    parser.add_argument("--replay", type=int, help="read this one case in this process and print its outcomes")
    return parser


def _replayed(seeds: Sequence[tuple[str, bytes]], seed: int, number: int, tiers: Sequence[str], limits: Limits) -> int:
    with tempfile.TemporaryDirectory(prefix="perfnb-fuzz-") as folder:
        case = Alarmed(seeds, seed, tiers, limits, Path(folder)).read(number)
    print(f"case {case.number}: {case.origin}, {', '.join(case.mutations) or 'unchanged'}")
    for kind, detail, *_ in case.outcomes:
        print(f"  {kind}: {detail}")
    return int(any(is_failure for _, _, is_failure, _ in case.outcomes))


def _saved(failures: Sequence[tuple[Case, str, str]], seeds: Sequence[tuple[str, bytes]], seed: int, folder: Path) -> None:
    """A list of all failures, the files of the first of each kind, and a line on each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    saved: Counter[str] = Counter()
    with (folder / "failures.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "kind", "detail", "seed_trace", "mutations", "file"])
        for case, kind, detail in sorted(failures, key=lambda each: each[0].number):
            path = ""
            if saved[kind] < _SAVED_PER_KIND:
                path = save(case, damaged(seeds, seed, case.number)[1], kind, folder).name
            saved[kind] += 1
            writer.writerow([case.number, kind, detail, case.origin, " ".join(case.mutations), path])
    for line in _first_of_each(failures):
        print(line)


def _first_of_each(failures: Sequence[tuple[Case, str, str]]) -> Iterator[str]:
    seen: set[str] = set()
    for case, kind, detail in sorted(failures, key=lambda each: each[0].number):
        if kind not in seen:
            seen.add(kind)
            yield f"  first {kind}: case {case.number} ({case.origin}; {', '.join(case.mutations)}): {detail[:160]!r}"


if __name__ == "__main__":
    sys.exit(main())
