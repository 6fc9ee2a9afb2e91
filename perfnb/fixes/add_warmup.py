"""Fix: let the learning rate rise slowly at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.training.curve import whole_number

_SHARE: Final = 0.05


@fix(
    knobs=("warmup_steps",),
    answers=("early_instability",),
    reason="short steps at first leave the region where the loss is steep before long ones are taken",
    source="Gilmer et al. (2021), A Loss Curvature Perspective on Training Instability; 5 % of the run is a choice",
    caution="not validated on runs of ours: probe it beside the present start and beside a lower rate",
    examples=(
        FixExample("none so far", {"warmup_steps": 0, "planned_steps": 1000}, {"warmup_steps": 50}),
        FixExample("left to the framework", {"warmup_steps": None, "planned_steps": 1000}, {"warmup_steps": 50}),
        FixExample("longer already", {"warmup_steps": 80, "planned_steps": 1000}, None, "80 steps already"),
        FixExample("how long it will run is not known", {"warmup_steps": 0}, None, "planned_steps"),
        FixExample("not a number", {"warmup_steps": "some", "planned_steps": 1000}, None, "'some'"),
    ),
)
def add_warmup(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Warm up over a twentieth of the run at the same rate."""
    now = value_of(config, "warmup_steps")
    if now is not None and (type(now) is not int or now < 0):
        return f"warmup_steps is {now!r}, not a number of steps"
    planned = whole_number(config, "planned_steps")
    if planned is None:
        return "how long the run will be is not known: give planned_steps in the config"
    after = max(1, round(_SHARE * planned))
    return {"warmup_steps": after} if (now or 0) < after else f"the rate warms up over {now} steps already"
