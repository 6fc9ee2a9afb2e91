"""How near the dry run comes to real training on the CPU, beside simpler ways to predict memory.

    python -m benchmarks.memory.dry_run [--only WORD] [--csv FILE]

One row per configuration: the peak of real steps at the largest batch (the [memory] events of torch's profiler), and the errors
of the dry run alone, with the residual of one and of two measured smaller batches, of scaling a smaller peak in proportion to
the batch, of a line through the two smaller peaks, of torch's MemTracker and of accelerate's estimate. Families that were not
looked at while the dry run was written are marked held out. Predictions are made before the peak that they are compared with.
Scratch memory of convolutions depends on the number of threads: OMP_NUM_THREADS is printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.memory.baselines import BASELINES, accelerate_peak, mem_tracker_peak
from benchmarks.memory.dry_run_families import BUILT_WITH, Family, Options
from benchmarks.memory.dry_run_held_out import HELD_OUT
from benchmarks.memory.dry_run_truth import real_peak
from perfnb.prediction import Unknown
from perfnb.whatif.dry_run import MeasuredPeak, predict_memory

METHODS: Final = ("dry_run", "one_point", "two_points", "proportional", "line", *BASELINES)
_PERCENT: Final = 100.0
_EXACT: Final = 1.0002


def main(words: Sequence[str] | None = None) -> int:
    """Print the rows, then what they come to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory.dry_run", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="the family of this name, else those whose name holds it")
    parser.add_argument("--csv", type=Path, help="add the rows to this file")
    parser.add_argument("--summarize", type=Path, help="only sum up the rows of such a file")
    chosen = parser.parse_args(words)
    if chosen.summarize is not None:
        print("\n".join(summary(pd.read_csv(chosen.summarize))))
        return 0
    table = accuracy(chosen.only)
    if table.empty:
        print(f"no family's name holds {chosen.only!r}: there are {', '.join((*BUILT_WITH, *HELD_OUT))}")
        return 2
    with pd.option_context("display.max_columns", None, "display.width", 250, "display.max_colwidth", 60):
        print(table.round(3).to_string(index=False))
    print("\n".join([f"torch {torch.__version__}, {torch.get_num_threads()} threads", *summary(table)]))
    if chosen.csv is not None:
        table.to_csv(chosen.csv, index=False, mode="a", header=not chosen.csv.exists())
    return 0


def accuracy(only: str = "") -> pd.DataFrame:
    """One row per configuration.

    Returns
    -------
    pandas.DataFrame
        family, variant, is_held_out, batch_size, peak_bytes (real), level (of the dry run alone: C, D or Unknown), covered
        (whether the real peak lies in its interval, to 0.02 %), level_with_two and covered_with_two (the same with two points),
        the error of each method as a percentage of the real peak (NaN where a method gives nothing) and unmodelled (operators,
        or why the dry run refuses).
    """
    families = [
        (name, own, is_held_out) for is_held_out, all_ in ((False, BUILT_WITH), (True, HELD_OUT)) for name, own in all_.items()
    ]
    wanted = [(*one, options) for one in families if _is_wanted(one[0], only) for options in one[1].variants]
    rows = [_row(*one) for one in tqdm(wanted, desc="configurations", leave=False, disable=not sys.stderr.isatty())]
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> list[str]:
    """Median and largest errors by group, in sentences."""
    found = []
    for is_held_out, own in table.groupby("is_held_out"):
        kind = "held-out families" if is_held_out else "families that it was built with"
        found.append(f"{kind}: {own['family'].nunique()} families, {len(own)} configurations")
        for level, rows in own.groupby("level"):
            known = rows["dry_run"].notna()
            inside = f", {int(rows.loc[known, 'covered'].sum())} of {int(known.sum())} in their interval" if known.any() else ""
            found.append(f"  level {level}: {len(rows)} configurations{inside}")
            for name in METHODS:
                errors = rows[name].dropna().abs()
                if len(errors):
                    found.append(f"    {name}: median {errors.median():.3f} %, worst {errors.max():.3f} %")
        for level, rows in own.groupby("level_with_two"):
            inside, errors = int(rows["covered_with_two"].sum()), rows["two_points"].abs()
            found.append(
                f"  with two points, level {level}: {len(rows)} configurations, {inside} in their interval, "
                f"median {errors.median():.3f} %, worst {errors.max():.3f} %"
            )
    return found


def _is_covered(found: Any, real: int) -> bool | None:
    """Whether the real peak lies in the interval, to 0.02 %; None where there is none."""
    if isinstance(found, Unknown):
        return None
    return bool(found.before.low_bytes <= real * _EXACT and real <= found.before.high_bytes)


def _is_wanted(name: str, only: str) -> bool:
    return name == only if only in BUILT_WITH or only in HELD_OUT else only in name


def _row(name: str, family: Family, is_held_out: bool, options: Options) -> dict[str, Any]:  # noqa: FBT001 - a column
    small, middle, large = family.batches
    measured = {size: real_peak(family, options, size) for size in (small, middle)}
    alone = _predicted(family, options, large, {})
    one = _predicted(family, options, large, {middle: measured[middle]})
    two = _predicted(family, options, large, measured)
    line = np.polyval(np.polyfit(list(measured), list(measured.values()), 1), large)
    tracked, estimated = mem_tracker_peak(family, options, large), accelerate_peak(family, options)
    real = real_peak(family, options, large)  # last: no prediction knows it
    error = {
        "dry_run": None if isinstance(alone, Unknown) else alone.before.peak_bytes,
        "one_point": None if isinstance(one, Unknown) else one.before.peak_bytes,
        "two_points": None if isinstance(two, Unknown) else two.before.peak_bytes,
        "proportional": measured[middle] * large / middle,
        "line": line,
        "mem_tracker": None if isinstance(tracked, str) else tracked,
        "accelerate": None if isinstance(estimated, str) else estimated,
    }
    base = {
        "family": name,
        "variant": ", ".join(f"{knob}={value}" for knob, value in options.items()) or "plain",
        "is_held_out": is_held_out,
        "batch_size": large,
        "peak_bytes": real,
        "level": "Unknown" if isinstance(alone, Unknown) else alone.before.level,
        "covered": _is_covered(alone, real),
        "level_with_two": "Unknown" if isinstance(two, Unknown) else two.before.level,
        "covered_with_two": _is_covered(two, real),
    }
    errors = {method: float("nan") if value is None else _PERCENT * (value / real - 1) for method, value in error.items()}
    said = alone.reason if isinstance(alone, Unknown) else ", ".join(alone.before.unmodelled)
    failed = "; ".join(
        f"{name}: {what}" for name, what in zip(BASELINES, (tracked, estimated), strict=True) if isinstance(what, str)
    )
    return {**base, **errors, "unmodelled": said, "baselines_failed": failed}


def _predicted(family: Family, options: Options, batch_size: int, measured: Mapping[int, int]) -> Any:
    config = {"batch_size": batch_size, **options}
    if family.length is not None:
        config["sequence_length"] = family.length
    points = [MeasuredPeak(size, peak) for size, peak in measured.items()]
    return predict_memory(
        family.model,
        family.batch,
        family.loss,
        lambda own: torch.optim.AdamW(own, lr=1e-3),
        config=config,
        target="cpu",
        measured=points,
    )


if __name__ == "__main__":
    sys.exit(main())
