"""Fix: let each loader worker load more batches ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, OneOf, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_OFFERED: Final = (4, 8)
_STEADY_SHARE: Final = 0.5  # median over mean wait from which on batches are waited for alike (a prior)
_TWO_WORKERS: Final = {"num_workers": 2, "prefetch_factor": 2}


def _run(*waits: int) -> Run:
    """A run whose steps wait so long for data."""
    rows = "\n".join(f"0 {step} data {wait}" for step, wait in enumerate(waits))
    return Run(phases=table_from_text("phases", f"rank step phase wall_us\n{rows}"), signals=frozenset({"phases"}))


@fix(
    knobs=("prefetch_factor",),
    answers=("outlier_samples", "data_stall"),
    reason="a longer queue of batches lasts over a slow one",
    source="PyTorch documentation, torch.utils.data.DataLoader: batches that each worker loads ahead, 2 by default",
    caution="num_workers x prefetch_factor batches are held in shared memory",
    examples=(
        FixExample("few long waits", _TWO_WORKERS, {"prefetch_factor": OneOf((4, 8))}, make_run=lambda: _run(1, 1, 1, 97)),
        FixExample("waits not recorded", _TWO_WORKERS, {"prefetch_factor": OneOf((4, 8))}),
        FixExample("from 4", {"num_workers": 2, "prefetch_factor": 4}, {"prefetch_factor": OneOf((8,))}),
        FixExample("every batch is late", _TWO_WORKERS, None, "runs dry", make_run=lambda: _run(20, 25, 30, 25)),
        FixExample("no workers", {"num_workers": 0, "prefetch_factor": 2}, None, "no workers"),
        FixExample("workers not known", {"prefetch_factor": 2}, None, "no num_workers"),
        FixExample("long already", {"num_workers": 2, "prefetch_factor": 8}, None, "8 already"),
        FixExample("not a number", {"num_workers": 2, "prefetch_factor": None}, None, "None"),
    ),
)
def raise_prefetch_factor(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Raise `prefetch_factor` to 4 or 8; the what-if model chooses."""
    now = value_of(config, "prefetch_factor")
    workers = value_of(config, "num_workers") if has_knob(config, "num_workers") else None
    if workers is None:
        return "the config has no num_workers: without workers nothing is loaded ahead"
    if workers == 0:
        return "there are no workers that could load ahead: raise num_workers first"
    if type(now) is not int or now < 1:
        return f"prefetch_factor is {now!r}, no number of batches"
    waits = run.phases.loc[run.phases["phase"].eq("data"), "wall_us"]
    if len(waits) and float(waits.median()) >= _STEADY_SHARE * float(waits.mean()):
        return "every batch is waited for about alike, so a longer queue runs dry as well"
    values = tuple(value for value in _OFFERED if value > now)
    return {"prefetch_factor": OneOf(values)} if values else f"prefetch_factor is {now} already"
