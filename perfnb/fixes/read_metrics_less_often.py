"""Fix: compute and log metrics at some steps, not at every one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix

_EVERY: Final = 50  # steps; PyTorch Lightning logs every 50 steps by default (Trainer.log_every_n_steps)


@fix(
    knobs=("log_every_n_steps",),
    answers=("host_sync", "python_overhead"),
    reason="reading values, norms and histograms stops the step each time",
    source="PyTorch Lightning, Trainer(log_every_n_steps=50) by default; PyTorch tuning guide: avoid unnecessary synchronisation",
    caution="only if the training does not act on the value at every step",
    examples=(
        FixExample("from every step to every 50th", {"log_every_n_steps": 1}, {"log_every_n_steps": 50}),
        FixExample("rare enough", {"log_every_n_steps": 100}, None, "100 steps already"),
        FixExample("not a number", {"log_every_n_steps": "epoch"}, None, "'epoch'"),
    ),
)
def read_metrics_less_often(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Log every 50th step."""
    now = value_of(config, "log_every_n_steps")
    if type(now) is not int or now < 1:
        return f"log_every_n_steps is {now!r}, not a number of steps"
    return {"log_every_n_steps": _EVERY} if now < _EVERY else f"metrics are read every {now} steps already"
