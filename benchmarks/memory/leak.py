"""The leak test on series whose answer is known, and on real training with and without a kept graph.

    python -m benchmarks.memory.leak [--series 100]

Of each kind of series so many are made, and it is counted how many are called a leak: with all three conditions of the test, and
beside it with what a plain line through the values says (ordinary least squares, 512 B per step or more).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from perfnb.analyses.leak_test import FEWEST_STEPS, WARM_UP_STEPS, leak_test

Floats = NDArray[np.floating[Any]]
Made = Callable[[np.random.Generator, Floats], Floats]

MB: Final = 1e6
GRANULE: Final = 512
LENGTHS: Final = (200, 1000)


def correlated(random: np.random.Generator, at: Floats, correlation: float, deviation: float) -> Floats:
    """AR(1) of a standard deviation."""
    noise, values = random.normal(size=len(at)), np.empty(len(at))
    values[0] = noise[0]
    for place in range(1, len(at)):
        values[place] = correlation * values[place - 1] + math.sqrt(1 - correlation**2) * noise[place]
    return values * deviation


def _sawtooth(period: int) -> Made:
    return lambda random, at: (at + random.integers(0, period)) % period * MB + random.normal(size=len(at)) * MB / 2


HARMLESS: Final = MappingProxyType[str, Made](
    {
        "flat": lambda _, at: 0.0 * at,
        "noise of 20 MB": lambda random, at: random.normal(size=len(at)) * 20 * MB,
        "random lengths": lambda random, at: random.integers(64, 1024, len(at)) * 0.2 * MB,
        "warm-up": lambda random, at: 300 * MB * (1 - np.exp(-at / 10)) + random.normal(size=len(at)) * 2 * MB,
        "one-off step": lambda random, at: (
            np.where(at >= random.integers(20, len(at) - 20), 200 * MB, 0.0) + random.normal(size=len(at)) * 2 * MB
        ),
        "evaluation spikes": lambda random, at: (
            np.where((at + 1) % 50 == 0, 500 * MB, 0.0) + random.normal(size=len(at)) * 2 * MB
        ),
        "AR(1) 0.5": lambda random, at: correlated(random, at, 0.5, 20 * MB),
        "AR(1) 0.9": lambda random, at: correlated(random, at, 0.9, 20 * MB),
        "AR(1) 0.99": lambda random, at: correlated(random, at, 0.99, 20 * MB),
        "random walk": lambda random, at: random.normal(size=len(at)).cumsum() * MB,
        "sawtooth of 50": _sawtooth(50),
        "sawtooth of 90": _sawtooth(90),
        "sawtooth of 150": _sawtooth(150),
    }
)
LEAKS: Final = MappingProxyType[str, Made](
    {
        "512 B": lambda _, at: at * 512,
        "4 KiB": lambda _, at: at * 4096,
        "2 MB in noise of 20 MB": lambda random, at: at * 2 * MB + random.normal(size=len(at)) * 20 * MB,
        "1 MB per 10 steps": lambda _, at: at // 10 * MB,
        "2 MB in AR(1) 0.9": lambda random, at: at * 2 * MB + correlated(random, at, 0.9, 20 * MB),
        "0.5 MB in AR(1) 0.9": lambda random, at: at * MB / 2 + correlated(random, at, 0.9, 20 * MB),
    }
)
TRAININGS: Final = (
    "nothing kept",
    "numbers of an extra loss kept",
    "an extra loss kept with its graph",
    "outputs kept, detached",
)


def table(series: int = 100, lengths: Sequence[int] = LENGTHS) -> pd.DataFrame:
    """How many series of each kind are called a leak.

    Returns
    -------
    pandas.DataFrame
        One row per kind: kind, is_leak (the truth), and for each number of steps leaks_n (all conditions), watches_n (rises, but
        not beyond what late garbage collection or wandering could do) and line_n (least squares alone).
    """
    rows = []
    kinds = [(name, made, is_leak) for is_leak, own in ((False, HARMLESS), (True, LEAKS)) for name, made in own.items()]
    for name, made, is_leak in tqdm(kinds, desc="kinds of series", leave=False, disable=not sys.stderr.isatty()):
        row: dict[str, Any] = {"kind": name, "is_leak": is_leak}
        for steps in lengths:
            at = np.arange(steps, dtype=np.float64)
            verdicts, lines = [], 0
            for seed in range(series):
                memory = np.round((2e9 + made(np.random.default_rng([seed, steps]), at)) / GRANULE) * GRANULE
                verdicts.append(leak_test(memory).verdict)
                lines += bool(np.polyfit(at, memory, 1)[0] >= GRANULE)
            row |= {f"leaks_{steps}": verdicts.count("leak"), f"watches_{steps}": verdicts.count("watch"), f"line_{steps}": lines}
        rows.append(row)
    return pd.DataFrame(rows)


def training_table(steps: int = FEWEST_STEPS + WARM_UP_STEPS) -> pd.DataFrame:
    """The leak test on real training on the CPU: bytes of all living storages at each step's end, in blocks of 512 B.

    Returns
    -------
    pandas.DataFrame
        One row per training: training, verdict, slope_bytes (per step), steps.
    """
    rows = []
    for kind in TRAININGS:
        found = leak_test(_memory_of_training(kind, steps)[WARM_UP_STEPS:])
        rows.append((kind, found.verdict, found.slope_bytes, steps - WARM_UP_STEPS))
    return pd.DataFrame(rows, columns=["training", "verdict", "slope_bytes", "steps"])


def _memory_of_training(kind: str, steps: int) -> list[int]:
    """Held bytes at the end of each step; what is kept is what the kind says."""
    import torch  # noqa: PLC0415 - the table of series goes without it

    from benchmarks.memory.living_storages import LivingStorages  # noqa: PLC0415 - as above

    torch.manual_seed(0)
    kept: list[Any] = []
    held: list[int] = []
    with LivingStorages() as living:
        model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(steps):
            output = model(torch.randn(16, 32))
            loss = output.square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            extra = model(torch.randn(16, 32)).square().mean()  # logged only: its backward never runs
            if kind == "numbers of an extra loss kept":
                kept.append(extra.item())
            elif kind == "an extra loss kept with its graph":
                kept.append(extra)
            elif kind == "outputs kept, detached":
                kept.append(output.detach())
            del output, loss, extra
            held.append(living.block_bytes)
    return held


def main(words: Sequence[str] | None = None) -> int:
    """Print both tables; 1 where a harmless kind has more than 2 of 100 or a leak of 2 MB or more is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory.leak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=int, default=100, help="of each kind")
    chosen = parser.parse_args(words)
    made = table(chosen.series)
    print(made.to_string(index=False))
    trainings = training_table()
    print(trainings.round(1).to_string(index=False))
    false, all_of = made.loc[~made["is_leak"], "leaks_200"], chosen.series
    print(f"200 steps: {false.sum()} of {all_of * len(false)} harmless series called a leak, at most {false.max()} of one kind")
    return int(bool(false.max() > 0.02 * all_of))


if __name__ == "__main__":
    sys.exit(main())
