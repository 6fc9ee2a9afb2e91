"""Whether a memory keeps growing from step to step: a test that noise, warm-up and late garbage collection do not pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from perfnb import text
from perfnb.analyses.trend import Trend, theil_sen, trend
from perfnb.config.mapping import has_knob, value_of

LEAST_SLOPE: Final = 512.0
"""Bytes per step: torch's caching allocator hands out multiples of 512 B (c10/cuda/CUDACachingAllocator.h, kMinBlockSize)."""

LEAST_SLOPE_OF_PART: Final = 256.0
"""Bytes per step in each part: a one-off step or a warm-up rises in one part only."""

LEAST_Z: Final = 4.0
"""Of Mann-Kendall: 1 of 30,000 series without a trend has more by chance (upper tail of a normal variable)."""

SPREADS: Final = 3.0
"""Rise over spread of the series without its trend: a sawtooth of which the window holds one tooth and a half has less."""

FEWEST_STEPS: Final = 200
"""A sawtooth longer than the window looks like a leak: of 100 with a period of 150 steps, 40 did in 100 steps, none in 200."""

FEWEST_VALUES: Final = 25
"""Memory is sampled by time, so that not every step has a value: as every 8th of 200, 0 of 900 harmless series are leaks."""

RUNS_OF_SAMPLES: Final = 40
"""Runs of neighbours of which the lowest sample is taken, where samples fall anywhere within a step."""

WARM_UP_STEPS: Final = 3
"""Left out at the start: there the optimizer makes its state."""

FEWEST_AFTER_EPOCH: Final = 8
"""Values after the first pass over the data from which a slope of their own is taken."""

HORIZON_STEPS: Final = 10_000
"""Steps over which a leak is counted where the number of steps planned is not known."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LeakTest:
    """What the leak test says of one memory.

    Attributes
    ----------
    verdict
        "leak"; "watch": it rises, but not beyond what late garbage collection or wandering could do; "none".
    slope_bytes
        Growth per step.
    z, plain_z
        Of Mann-Kendall, with and without the correction for autocorrelation.
    rise_bytes, spread_bytes
        Growth over the window, and 5 to 95 % range of what is left without it.
    """

    verdict: Literal["leak", "watch", "none"]
    slope_bytes: float
    z: float
    plain_z: float
    rise_bytes: float
    spread_bytes: float


def leak_test(memory_bytes: ArrayLike, steps: ArrayLike | None = None) -> LeakTest:
    """Whether a memory keeps growing from step to step beyond what harmless patterns do.

    A leak has a Theil-Sen slope of 512 B per step or more, and more than 256 B in each half; a Mann-Kendall z, corrected for
    ties and autocorrelation, above 4; and a rise of more than three times the spread round it.

    Parameters
    ----------
    memory_bytes
        Bytes in use at the same point of each step, in order; at least four.
    steps
        Number of the step of each; 0, 1, 2, ... by default.

    Examples
    --------
    >>> leak_test([1024.0 * step for step in range(200)]).verdict, leak_test([7e6] * 200).verdict
    ('leak', 'none')
    """
    series, at = _numbers(memory_bytes, steps)
    found = trend(series, at, granule=LEAST_SLOPE)
    return _judged(found, rises=_rises(series, at, found.slope, 2), is_no_chance=found.z > LEAST_Z)


def leak_test_of_samples(memory_bytes: ArrayLike, steps: ArrayLike) -> LeakTest:
    """The leak test for samples that fall anywhere within their steps, such as those of a process's resident memory.

    What a step uses and gives back is noise in them, so that of each of 40 runs of neighbours only the lowest counts. Resident
    memory grows by fits and starts, of which the correction for autocorrelation makes chance; instead of it each quarter has
    to rise. On 1,300 harmless series that is as strict (of 100 random walks 1 to 3 are leaks, of 100 AR(1) of 0.99 one at most,
    of all others none), and finds the same leaks.

    Parameters
    ----------
    memory_bytes
        Bytes in use, in order of time; at least `FEWEST_VALUES`.
    steps
        Position of each, in steps.
    """
    series, at = _numbers(memory_bytes, steps)
    runs = np.array_split(np.arange(len(series)), min(RUNS_OF_SAMPLES, len(series)))
    lowest = [int(run[np.argmin(series[run])]) for run in runs]
    series, at = series[lowest], at[lowest]
    found = trend(series, at, granule=LEAST_SLOPE)
    rises = _rises(series, at, found.slope, 2)
    return _judged(found, rises=rises, is_no_chance=rises and _rises(series, at, found.slope, 4))


def _numbers(memory_bytes: ArrayLike, steps: ArrayLike | None) -> tuple[Floats, Floats]:
    series = np.asarray(memory_bytes, dtype=np.float64)
    return series, np.arange(len(series), dtype=np.float64) if steps is None else np.asarray(steps, dtype=np.float64)


def _rises(series: Floats, at: Floats, slope: float, parts: int) -> bool:
    """Whether a memory grows in all, and in each of so many parts."""
    places = np.array_split(np.arange(len(series)), parts)
    return slope >= LEAST_SLOPE and all(
        len(part) > 1 and theil_sen(series[part], at[part]) > LEAST_SLOPE_OF_PART for part in places
    )


def _judged(found: Trend, *, rises: bool, is_no_chance: bool) -> LeakTest:
    verdict: Literal["leak", "watch", "none"] = "none"
    if rises and found.plain_z > LEAST_Z:
        verdict = "leak" if is_no_chance and found.rise > SPREADS * found.spread else "watch"
    return LeakTest(verdict, found.slope, found.z, found.plain_z, found.rise, found.spread)


def growing_memories(rows: pd.DataFrame, config: Mapping[str, Any], *, within_steps: bool = False) -> pd.DataFrame:
    """What the leak test says of each memory, and what its growth comes to in the steps that are left.

    Of each memory the first three steps are left out, and of several values in one step the lowest counts: what a step uses and
    gives back is no growth. Where the values go past the first pass over the data (`epoch`), growth that ends with it is no
    leak: a dataset that keeps what it loaded grows like that.

    Parameters
    ----------
    rows
        rank, device (NA on the host), step, at (position in steps), memory_bytes, capacity_bytes and epoch (NA where not
        known), in order of time.
    config
        The training's config; `planned_steps` is read where it is there.
    within_steps
        Whether values fall anywhere within their steps (`leak_test_of_samples`), not at the end of each (`leak_test`).

    Returns
    -------
    pandas.DataFrame
        One row per memory: rank, device, step (its last), verdict (of the leak test; "short" with fewer than 200 steps or 25
        values), bytes (slope times horizon, at most the capacity; 0 unless a leak), capacity_bytes, slope_bytes_per_step,
        horizon_steps, steps_to_out_of_memory (from the last value on), first_step, values, z, rise_bytes and spread_bytes.
    """
    found = []
    for (rank, device), own in rows.groupby(["rank", "device"], dropna=False, sort=True):
        kept = own[own["step"] >= own["step"].min() + WARM_UP_STEPS]
        kept = kept.loc[kept.groupby("step")["memory_bytes"].idxmin()].sort_values("at", kind="stable")
        if len(kept):
            found.append({"rank": rank, "device": device} | _said_of(kept, config, within_steps=within_steps))
    columns = ["rank", "device", "step", "verdict", "bytes", "capacity_bytes", "slope_bytes_per_step", "horizon_steps"]
    columns += ["steps_to_out_of_memory", "first_step", "values", "z", "rise_bytes", "spread_bytes"]
    return pd.DataFrame(found, columns=columns).astype({"device": "Int64"})


def why_short(found: pd.DataFrame) -> str:
    """Why no memory could be tested, in words; "" where one could."""
    if found.empty:
        return "no memory was recorded after the third step"
    if not found["verdict"].eq("short").all():
        return ""
    steps, values = int((found["step"] - found["first_step"]).max()) + 1, int(found["values"].max())
    rising = found["slope_bytes_per_step"].max()
    seen = (
        f"memory in {text.count(values, 'step')} of {steps}; a leak needs {FEWEST_STEPS} steps and {FEWEST_VALUES} values to be "
    )
    growth = f" (it rises by {text.byte_size(float(rising))} per step so far)" if rising >= LEAST_SLOPE else ""
    return f"{seen}told from late garbage collection{growth}: record more steps"


def _said_of(own: pd.DataFrame, config: Mapping[str, Any], *, within_steps: bool) -> dict[str, Any]:
    memory, at = own["memory_bytes"].to_numpy(dtype=np.float64), own["at"].to_numpy(dtype=np.float64)
    first, last = int(own["step"].iloc[0]), int(own["step"].iloc[-1])
    capacity = float(own["capacity_bytes"].median())
    told: dict[str, Any] = {"step": last, "first_step": first, "values": len(own), "capacity_bytes": capacity, "bytes": 0.0}
    if len(own) < FEWEST_VALUES or last - first + 1 < FEWEST_STEPS:
        slope = theil_sen(memory, at) if len(own) > 1 else 0.0
        return told | {"verdict": "short", "slope_bytes_per_step": slope}
    found = leak_test_of_samples(memory, at) if within_steps else leak_test(memory, at)
    verdict = found.verdict
    if verdict == "leak" and _ends_with_first_epoch(memory, at, own["epoch"], found.slope_bytes):
        verdict = "watch"
    horizon = _horizon(config, first, last)
    if verdict == "leak":
        told["bytes"] = min(found.slope_bytes * horizon, capacity)
        told["steps_to_out_of_memory"] = max(capacity - float(memory[-1]), 0.0) / found.slope_bytes
    return told | {
        "verdict": verdict,
        "slope_bytes_per_step": found.slope_bytes,
        "horizon_steps": horizon,
        "z": found.z,
        "rise_bytes": found.rise_bytes,
        "spread_bytes": found.spread_bytes,
    }


def _ends_with_first_epoch(memory: Floats, at: Floats, epoch: pd.Series, slope: float) -> bool:
    """Whether the values after the first epoch rise less than half as fast as all together."""
    later = epoch.gt(epoch.min()).fillna(value=False).to_numpy(dtype=bool)
    if later.sum() < FEWEST_AFTER_EPOCH:
        return False
    return theil_sen(memory[later], at[later]) < slope / 2


def _horizon(config: Mapping[str, Any], first: int, last: int) -> int:
    """Steps over which growth counts: those planned and not yet done, at least those seen; 10,000 where no number is planned."""
    planned = value_of(config, "planned_steps") if has_knob(config, "planned_steps") else None
    if type(planned) is not int or planned <= 0:
        return HORIZON_STEPS
    return max(planned - last - 1, last - first + 1)
