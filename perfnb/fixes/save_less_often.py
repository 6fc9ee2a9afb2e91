"""Fix: write checkpoints at fewer steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("checkpoint_every_n_steps",),
    answers=("checkpoint_stall",),
    reason="each save stops the training, so fewer saves stop it for less time",
    source="CheckFreq (FAST 2021): how often to save is a trade of stalls against work that is lost",
    caution="a training that fails loses the steps since the last save: most_steps_lost says how many you accept",
    examples=(
        FixExample(
            "500 steps may be lost",
            {"checkpoint_every_n_steps": 10, "most_steps_lost": 500},
            {"checkpoint_every_n_steps": 500},
        ),
        FixExample("nobody said how many", {"checkpoint_every_n_steps": 10}, None, "most_steps_lost"),
        FixExample("rare enough", {"checkpoint_every_n_steps": 500, "most_steps_lost": 100}, None, "500 steps already"),
        FixExample("not a number", {"checkpoint_every_n_steps": "epoch", "most_steps_lost": 100}, None, "'epoch'"),
        FixExample("no number of steps", {"checkpoint_every_n_steps": 10, "most_steps_lost": -1}, None, "-1"),
    ),
)
def save_less_often(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Save as rarely as the user can bear."""
    now = value_of(config, "checkpoint_every_n_steps")
    if type(now) is not int or now < 1:
        return f"checkpoint_every_n_steps is {now!r}, not a number of steps"
    if not has_knob(config, "most_steps_lost"):
        return "how many steps of work may be lost is yours to say: give most_steps_lost in the config"
    most = value_of(config, "most_steps_lost")
    if type(most) is not int or most < 1:
        return f"most_steps_lost is {most!r}, not a number of steps"
    return {"checkpoint_every_n_steps": most} if now < most else f"the state is saved every {now} steps already"
