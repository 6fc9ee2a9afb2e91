"""Changes of a training in pipeline stages, predicted from the replay of its operations: other stages, equal batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfnb.prediction import Prediction, Unknown
from perfnb.whatif.pipeline_graph import BACKWARD, FORWARD, Operation
from perfnb.whatif.pipeline_replay import PipelineReplay
from perfnb.whatif.transform import model_names
from perfnb.whatif.uncertainty import Calibration, draw_rows, draws_half_width, spread

Floats = NDArray[np.float64]
Lengths = Mapping[Operation, Floats]

PIPELINE_ERROR: Final = 0.05  # a prior (whatif contract, section 7)
LARGEST_REPLAY_ERROR: Final = 0.10  # whatif contract, section 3
KNOBS: Final = ("balance_batches", "pipeline_split")

_COMPUTES: Final = (FORWARD, BACKWARD)


def predict_pipeline(
    replay: PipelineReplay,
    changes: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    calibration: Calibration | None = None,
    draws: int = 40,
    seed: int = 0,
) -> Prediction | Unknown:
    """Mean step after changes of a training in stages, with an interval meant to hold the actual value in 80 % of cases.

    Operations that a change does not touch keep their recorded length and the delay of their host.

    Parameters
    ----------
    replay
        As `perfnb.whatif.pipeline_table.pipeline_replay` gives it.
    changes
        `pipeline_split`: layers of each stage; `balance_batches`: True.
    config
        With the `pipeline_split` of now, where that changes.
    calibration, draws, seed
        As of `perfnb.predict`.

    Returns
    -------
    Prediction or Unknown
        Microseconds; Unknown says what is missing.
    """
    lengths: dict[Operation, Floats] = dict(replay.recorded_us)
    assumptions = ["other operations take as long as now, and what the replay misses of the step stays in proportion"]
    for knob, after in sorted(changes.items()):  # balanced before layers move: each layer takes its share of equal work
        if knob not in KNOBS:
            return Unknown(f"the replay of stages has no model of {knob}: there are {', '.join(KNOBS)}", "perfnb.predict")
        edited = _balanced(replay, lengths, after) if knob == "balance_batches" else _split(replay, lengths, config, after)
        if isinstance(edited, Unknown):
            return edited
        told, made = edited
        lengths.update(made)
        assumptions.append(told)
    before = float(replay.recorded_step_us.mean())
    unchanged = replay.delayed_step_us()
    after_us = replay.delayed_step_us(lengths) * (before / float(unchanged.mean()))
    missed = float(unchanged.mean()) / before - 1.0
    if abs(missed) > LARGEST_REPLAY_ERROR:
        reason = (
            f"the replay gives {unchanged.mean() / 1e3:.4g} ms for the unchanged step of {before / 1e3:.4g} ms ({missed:+.0%})"
        )
        return Unknown(reason, "a recording that holds all operations of a step")
    drawn = [float(after_us[rows].mean()) for rows in draw_rows(len(after_us), draws, seed=seed)]
    width = spread(PIPELINE_ERROR, missed, draws_half_width(drawn))
    model, knob = model_names(["pipeline_replay"]), "+".join(sorted(changes))
    found = (calibration or Calibration()).interval(float(after_us.mean()), width, width, model=model, knob=knob)
    simulated = None if math.isclose(found.after, float(after_us.mean())) else float(after_us.mean())
    texts = (f"made from a replay of {len(replay.steps)} steps of all stages", *assumptions)
    return Prediction("step_us", before, found.after, found.low, found.high, found.basis, texts, model, width, simulated)


def _balanced(replay: PipelineReplay, lengths: Lengths, after: Any) -> tuple[str, Lengths] | Unknown:
    """Each micro-batch of a stage takes every rank the mean over ranks and micro-batches of its step."""
    if after is not True:
        return Unknown("how unequal the work would become is not known", "a run with balance_batches=False")
    made: dict[Operation, Floats] = {}
    for stage in replay.stages:
        for kind in _COMPUTES:
            own = [each for each in lengths if each.stage == stage and each.kind == kind]
            mean = np.mean([lengths[each] for each in own], axis=(0, 2))[:, None]
            made |= {each: np.broadcast_to(mean, lengths[each].shape) for each in own}
    return "the work of a step can be shared out evenly over its micro-batches and ranks", made


def _split(replay: PipelineReplay, lengths: Lengths, config: Mapping[str, Any], after: Any) -> tuple[str, Lengths] | Unknown:
    """The same layers, in their order, in other stages; the layers of one stage cost the same."""
    now: Any = config.get("pipeline_split")
    for value in (now, after):
        if not isinstance(value, Sequence) or isinstance(value, str) or any(type(each) is not int or each < 1 for each in value):
            return Unknown(f"pipeline_split is {value!r}", "the number of layers of each stage, from 1 on")
    if len(now) != len(replay.stages) or len(after) != len(now) or sum(after) != sum(now):
        reason = f"{now!r} -> {after!r} does not cut the same layers into the {len(replay.stages)} stages of the recording"
        return Unknown(reason, "as many layers in as many stages; another number of stages is another schedule")
    of_layer = [stage for stage, layers in zip(replay.stages, now, strict=True) for _ in range(layers)]
    made: dict[Operation, Floats] = {}
    first = 0
    for stage, layers in zip(replay.stages, after, strict=True):
        taken = of_layer[first : first + layers]
        first += layers
        for each in (each for each in lengths if each.stage == stage and each.kind in _COMPUTES):
            parts = [
                lengths[each._replace(stage=source)] / now[replay.stages.index(source)] * taken.count(source)
                for source in sorted(set(taken))
            ]
            made[each] = np.sum(parts, axis=0)
    return "layers of one stage cost the same, with a share of its embedding or loss; what stages send keeps its time", made
