"""Two small training steps for real, on the CPU, under torch's profiler: the memory of each phase as it was allocated."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.read.kineto import read_kineto
from perfnb.whatif.dry_run_setup import ModelFunctions, TrainingSetup
from perfnb.whatif.dry_run_step import PHASES, copied, owned_elsewhere, train

_MARK: Final = "perfnb.phase."
_OWN_REFERENCES: Final = 3  # of the caller, of this function's argument and of the count itself


@dataclass(slots=True)
class RealWatcher:
    """Marks the phases in the profile; the training itself is left as it is."""

    phase: str = "init"
    began: list[str] = field(default_factory=list)

    def enter(self, phase: str) -> None:
        """A phase begins: an empty range in the profile says when."""
        from torch.profiler import record_function  # noqa: PLC0415 - analysis of files runs without it

        self.phase = phase
        self.began.append(phase)
        with record_function(_MARK + phase):
            pass

    def own(self, model: Any) -> Any:
        """The model, or a copy where someone else holds it."""
        return copied(model) if owned_elsewhere(model, _OWN_REFERENCES) else model

    def batch(self, functions: ModelFunctions, setup: TrainingSetup) -> Any:
        """A batch."""
        return functions.batch_fn(*setup.batch_arguments())

    def holds(self, category: str, tensors: Iterable[Any]) -> None:
        """Nothing: a profile does not tell one block from another by what it holds."""

    def forward_ends(self) -> None:
        """Nothing, for that reason."""


def measure(functions: ModelFunctions, setup: TrainingSetup) -> dict[str, int]:
    """Peak of the allocated bytes in each phase of real steps on the CPU; memory that was allocated before is not counted.

    Parameters
    ----------
    functions, setup
        What to train.
    """
    import torch  # noqa: PLC0415

    watcher = RealWatcher()
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            train(functions, setup, watcher, is_for_cuda=False)
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        run = read_kineto(path)
    rows = run.allocations[run.allocations["device"].isna()]
    marks = run.host_ops[run.host_ops["name"].astype(str).str.startswith(_MARK)].sort_values("start_us", kind="stable")
    return _peaks(rows, marks)


def _peaks(rows: pd.DataFrame, marks: pd.DataFrame) -> dict[str, int]:
    """Largest sum of bytes in each phase; a phase begins with what is held then."""
    total = np.cumsum(rows["bytes"].to_numpy(dtype=np.int64))
    starts = np.searchsorted(rows["time_us"].to_numpy(), marks["start_us"].to_numpy())
    ends = [*starts[1:].tolist(), len(total)]
    found = dict.fromkeys(PHASES, 0)
    for name, start, end in zip(marks["name"].astype(str), starts.tolist(), ends, strict=True):
        held = total[max(start - 1, 0) : end] if start else np.append(0, total[:end])
        phase = name.removeprefix(_MARK)
        found[phase] = max(found[phase], int(held.max(initial=0)))
    return found
