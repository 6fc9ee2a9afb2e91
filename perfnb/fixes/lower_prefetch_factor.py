"""Fix: let each loader worker hold fewer batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix

_DEFAULT: Final = 2  # torch.utils.data.DataLoader, torch 2.13


@fix(
    knobs=("prefetch_factor",),
    answers=("host_memory_pressure",),
    reason="num_workers x prefetch_factor batches are held in the host's memory",
    source="PyTorch documentation, torch.utils.data.DataLoader: batches that each worker loads ahead, 2 by default",
    caution="batches whose loading times vary much may then be waited for",
    examples=(
        FixExample("from 8 to 2", {"num_workers": 4, "prefetch_factor": 8}, {"prefetch_factor": 2}),
        FixExample("two already", {"num_workers": 4, "prefetch_factor": 2}, None, "2 already"),
        FixExample("no workers", {"num_workers": 0, "prefetch_factor": 8}, None, "no workers"),
        FixExample("not a number", {"num_workers": 4, "prefetch_factor": None}, None, "None"),
    ),
)
def lower_prefetch_factor(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Lower `prefetch_factor` to torch's default."""
    now = value_of(config, "prefetch_factor")
    if has_knob(config, "num_workers") and value_of(config, "num_workers") == 0:
        return "there are no workers that load ahead"
    if type(now) is not int or now < 1:
        return f"prefetch_factor is {now!r}, no number of batches"
    return {"prefetch_factor": _DEFAULT} if now > _DEFAULT else f"prefetch_factor is {now} already"
