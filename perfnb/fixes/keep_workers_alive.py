"""Fix: keep loader workers from one epoch to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_WITH_WORKERS = {"num_workers": 2, "persistent_workers": False}


def _run(epochs: tuple[int, ...]) -> Run:
    """A run of one step per epoch."""
    rows = "\n".join(f"0 {step} {step} 1 {epoch}" for step, epoch in enumerate(epochs))
    return Run(steps=table_from_text("steps", f"rank step start_us duration_us epoch\n{rows}"))


@fix(
    knobs=("persistent_workers",),
    answers=("worker_restart",),
    reason="workers that are kept need not start, and need not import and open again what they did in the epoch before",
    source="PyTorch documentation, torch.utils.data.DataLoader: persistent_workers",
    caution="changes that the training makes to its dataset between epochs no longer reach the workers",
    examples=(
        FixExample("three epochs", _WITH_WORKERS, {"persistent_workers": True}, make_run=lambda: _run((0, 1, 2))),
        FixExample("epochs not recorded", _WITH_WORKERS, {"persistent_workers": True}),
        FixExample("one epoch", _WITH_WORKERS, None, "one epoch", make_run=lambda: _run((0, 0, 0))),
        FixExample("no workers", {"num_workers": 0, "persistent_workers": False}, None, "no workers"),
        FixExample("kept already", {"num_workers": 2, "persistent_workers": True}, None, "already"),
    ),
)
def keep_workers_alive(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Set `persistent_workers` to True."""
    if has_knob(config, "num_workers") and value_of(config, "num_workers") == 0:
        return "there are no workers to keep"
    if run.steps["epoch"].nunique() == 1:
        return "the run has one epoch, so workers start once"
    return "persistent_workers is on already" if value_of(config, "persistent_workers") else {"persistent_workers": True}
