"""How exactly the simulated caching allocator repeats recordings: address by address, for any snapshots.

    python -m benchmarks.memory.replay_exactness FILE_OR_FOLDER ...

One row per snapshot and device: the settings, allocations at their real address, new segments at the right moment with the right
size, reserved peak, and the first divergence where there is one. It takes what `perfnb.read_memory_snapshot` reads: pickles of
torch and the snapshots of `benchmarks/gpu`, loose or in a sample's `memory` folder. Status 1 if a snapshot with default settings
diverges before its end: those are expected to be exact.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from perfnb import read_memory_snapshot
from perfnb.errors import SnapshotFormatError
from perfnb.prediction import Unknown
from perfnb.read.memory_snapshot.allocator_settings import AllocatorSettings
from perfnb.whatif.recorded_replay import replay_recorded

_SUFFIXES: Final = (".pickle", ".pkl", ".snapshot.json.gz", ".snapshot.json")
_MIB: Final = 1 << 20


def main(words: Sequence[str] | None = None) -> int:
    """Print one row per snapshot and device, then the sums."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory.replay_exactness", description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--csv", type=Path, help="write the rows there as well")
    chosen = parser.parse_args(words)
    table = exactness(list(files(chosen.paths)))
    if table.empty:
        print(f"no snapshot found: names end in {', '.join(_SUFFIXES)}")
        return 2
    with pd.option_context("display.max_columns", None, "display.width", 250, "display.max_colwidth", 90):
        print(table.to_string(index=False))
    print("\n".join(summary(table)))
    if chosen.csv is not None:
        table.to_csv(chosen.csv, index=False)
    return int((table["settings"].eq("default") & ~table["is_exact"]).any())


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files that were named, and snapshots in folders."""
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.name.endswith(_SUFFIXES) and each.is_file())
        else:
            yield path


def exactness(paths: Sequence[Path]) -> pd.DataFrame:
    """One row per snapshot and device.

    Returns
    -------
    pandas.DataFrame
        file, device, settings, events, allocations, matched, segments, matched_segments, peak_reserved_mib,
        recorded_peak_reserved_mib, is_exact, cpu_s (of the replay), divergence (what stopped it, or why there is no replay).
    """
    return pd.DataFrame([row for path in paths for row in _rows(path)])


def summary(table: pd.DataFrame) -> list[str]:
    """Sums by settings, in sentences."""
    found = []
    for settings, own in table.groupby("settings"):
        totals = own[["allocations", "matched", "segments", "matched_segments"]].sum()
        found.append(
            f"{settings}: {totals['matched']:,} of {totals['allocations']:,} allocations at the real address, "
            f"{totals['matched_segments']:,} of {totals['segments']:,} new segments, "
            f"{own['is_exact'].sum()} of {len(own)} recordings exact"
        )
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    base: dict[str, Any] = {"file": path.name, "device": -1, "settings": "", "events": 0, "allocations": 0, "matched": 0}
    base |= {"segments": 0, "matched_segments": 0, "is_exact": False}
    try:
        run = read_memory_snapshot(path)
    except SnapshotFormatError as error:
        yield base | {"settings": "not read", "divergence": str(error)}
        return
    base["settings"] = _named(AllocatorSettings().with_knobs(run.config)) if run.config else "not told"
    for device in sorted(run.allocations["device"].dropna().unique()):
        began = time.process_time()
        replay = replay_recorded(run, device=int(device))
        took = time.process_time() - began
        own = run.allocations["device"].eq(device) & run.allocations["sequence"].ge(0)
        row = base | {"device": int(device), "events": int(own.sum()), "cpu_s": round(took, 3)}
        if isinstance(replay, Unknown):
            yield row | {"divergence": replay.reason}
            continue
        stopped = replay.divergence
        yield row | {
            "allocations": replay.allocations,
            "matched": replay.matched,
            "segments": replay.segments,
            "matched_segments": replay.matched_segments,
            "peak_reserved_mib": replay.peak_reserved_bytes / _MIB,
            "recorded_peak_reserved_mib": replay.recorded_peak_reserved_bytes / _MIB,
            "is_exact": replay.is_exact,
            "divergence": "" if stopped is None else f"event {stopped.sequence}: {stopped.what}",
        }


def _named(settings: AllocatorSettings) -> str:
    """Settings that are not the default."""
    plain = AllocatorSettings().knobs
    return ", ".join(f"{name}={value}" for name, value in settings.knobs.items() if value != plain[name]) or "default"


if __name__ == "__main__":
    sys.exit(main())
