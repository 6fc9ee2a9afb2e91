"""Batch size and accumulation on a CPU job, worked out by hand. Times are in milliseconds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from perfnb.errors import NoStepsError
from perfnb.prediction import Prediction, Unknown
from perfnb.run import Run
from perfnb.tables import conform
from perfnb.verify import verify
from perfnb.whatif.batch_knobs import ACCUMULATION_ERROR, BATCH_ERROR
from perfnb.whatif.batch_line import FIXED_SHARE
from perfnb.whatif.step_model import predict, shadow

MS = 1000.0
CONFIG = {"batch_size": 8, "gradient_accumulation_steps": 1, "num_workers": 0}


def sized(sizes: Sequence[int] = (8,) * 12, *, loading: float = 2.0, times: Sequence[float] | None = None, **fields: Any) -> Run:
    """Steps of 10 + 2 x size in forward and backward, loading so much per sample, 20 of optimizer and 4 of the rest."""
    steps, rows, start = [], [], 0.0
    computing = times or [10.0 + 2.0 * size for size in sizes]
    for number, (size, compute) in enumerate(zip(sizes, computing, strict=True)):
        phases = {"data": loading * size, "forward": compute / 2, "backward": compute / 2, "optimizer": 20.0, "other": 4.0}
        steps.append((0, number, start * MS, sum(phases.values()) * MS))
        rows += [(0, number, phase, time * MS, time * MS, 0.0, 0.0) for phase, time in phases.items()]
        start += sum(phases.values())
    columns = ["rank", "step", "phase", "wall_us", "cpu_us", "runqueue_us", "blocked_us"]
    training = pd.DataFrame({"rank": 0, "step": range(len(sizes)), "batch_size": [float(size) for size in sizes]})
    return Run(
        steps=conform("steps", pd.DataFrame(steps, columns=["rank", "step", "start_us", "duration_us"])),
        phases=conform("phases", pd.DataFrame(rows, columns=columns)),
        training=conform("training", training),
        signals=frozenset({"steps", "phases", "training"}),
        **fields,
    )


def predicted(answer: Prediction | Unknown) -> Prediction:
    assert isinstance(answer, Prediction), answer
    return answer


def reason(answer: Prediction | Unknown) -> str:
    assert isinstance(answer, Unknown), answer
    assert answer.needs
    return answer.reason


def test_a_second_size_in_an_earlier_run_gives_the_line_of_the_batch() -> None:
    run = sized(earlier=(sized((4,) * 12),))

    answer = predicted(predict(run, {"batch_size": 16}, CONFIG))

    # loading 32, forward and backward 10 + 32, optimizer 20, rest 4: 98 for 16 samples, against 66 for 8
    assert (answer.metric, answer.per) == ("sample_us", "sample")
    assert answer.before / MS == pytest.approx(66 / 8)
    assert answer.after / MS == pytest.approx(98 / 16)
    assert answer.low / MS == pytest.approx(98 / 16 * math.exp(-BATCH_ERROR))
    assert answer.verdict == "faster"


def test_a_smaller_batch_costs_more_per_sample() -> None:
    answer = predicted(predict(sized(earlier=(sized((4,) * 12),)), {"batch_size": 4}, CONFIG))

    assert answer.after / MS == pytest.approx((8 + 18 + 24) / 4)
    assert answer.verdict == "slower"


def test_sizes_within_one_run_give_the_line_too() -> None:
    run = sized((8,) * 12 + (16,) * 4)

    answer = predicted(predict(run, {"batch_size": 16}, CONFIG, metric="step_us"))

    # steady steps are 1 to 15: eleven of 8 and four of 16; all of their samples double
    size = (11 * 8 + 4 * 16) / 15
    assert answer.before / MS == pytest.approx(34 + 4 * size)
    assert answer.after / MS == pytest.approx(34 + 8 * size)


def test_one_size_alone_leaves_how_much_is_fixed_between_none_and_two_fifths() -> None:
    answer = predicted(predict(sized(loading=0.0, times=[86.0] * 12), {"batch_size": 16}, CONFIG, metric="step_us"))

    def after(fixed: float) -> float:
        return 24 + 86 * (fixed + 2 * (1 - fixed))

    middle = after(FIXED_SHARE.value)
    assert answer.after / MS == pytest.approx(middle)
    assert answer.high / MS == pytest.approx(middle * math.exp(math.hypot(BATCH_ERROR, math.log(after(0.0) / middle))))
    assert any("prior" in text for text in answer.assumptions)


def test_one_size_alone_of_a_step_that_does_something_else_is_not_enough() -> None:
    assert "forward and backward take 52% of the step" in reason(predict(sized(loading=0.0), {"batch_size": 16}, CONFIG))


def test_steps_that_follow_no_line_are_refused() -> None:
    wild = sized((4,) * 12, times=[10.0, 40.0] * 6)

    assert "off a line" in reason(predict(sized(earlier=(wild,)), {"batch_size": 16}, CONFIG))


@pytest.mark.parametrize(("after", "words"), [(17, "4 to 8 were seen"), (1, "more than 2 times beyond"), (0, "count samples")])
def test_sizes_far_from_those_seen_are_refused(after: int, words: str) -> None:
    assert words in reason(predict(sized(earlier=(sized((4,) * 12),)), {"batch_size": after}, CONFIG))


def test_a_size_between_those_that_were_seen_may_be_far_from_that_of_now() -> None:
    answer = predicted(predict(sized(earlier=(sized((32,) * 12),)), {"batch_size": 24}, CONFIG))

    assert answer.after / MS == pytest.approx((48 + 58 + 24) / 24)
    assert "batches of 8 were seen" in reason(predict(sized(), {"batch_size": 24}, CONFIG))


def test_workers_whose_batches_are_not_known_are_refused() -> None:
    config = {**CONFIG, "num_workers": 2}

    assert "times per batch" in reason(predict(sized(earlier=(sized((4,) * 12),)), {"batch_size": 16}, config))


def test_two_micro_batches_need_one_update() -> None:
    answer = predicted(predict(sized(), {"gradient_accumulation_steps": 2}, CONFIG))

    # twice 16 of loading and 26 of computing, once 24, and half of the 20 of an update to add gradients: 118 for 16 samples
    assert answer.metric == "sample_us"
    assert answer.after / MS == pytest.approx(118 / 16)
    assert answer.low / MS == pytest.approx(118 / 16 * math.exp(-math.hypot(ACCUMULATION_ERROR, math.log(118 / 108))))


def test_a_run_that_accumulates_has_adding_gradients_in_its_update() -> None:
    answer = predicted(predict(sized(), {"gradient_accumulation_steps": 4}, {**CONFIG, "gradient_accumulation_steps": 2}))

    # twice 16 and 26; of 20, an update and half as much for the second micro-batch became an update and three halves
    assert answer.after / MS == pytest.approx((84 + 4 + 20 * 2.5 / 1.5) / 16)


def test_half_the_batch_accumulated_twice_leaves_the_samples_of_a_step() -> None:
    run = sized(earlier=(sized((4,) * 12),))

    answer = predicted(predict(run, {"batch_size": 4, "gradient_accumulation_steps": 2}, CONFIG))

    # twice 8 of loading and 10 + 8 of computing, once 24, and 10 to add gradients
    assert answer.metric == "step_us"
    assert answer.after / MS == pytest.approx(86)


def test_accumulation_over_ranks_that_were_not_read_is_refused() -> None:
    assert "ranks 1 were not read" in reason(predict(sized(world_size=2), {"gradient_accumulation_steps": 2}, CONFIG))
    assert "micro-batches" in reason(predict(sized(), {"gradient_accumulation_steps": 0}, CONFIG))


def test_without_phases_of_forward_and_backward_accumulation_is_refused() -> None:
    run = sized()
    phases = run.phases.assign(phase=run.phases["phase"].astype(object).replace({"forward": "other", "backward": "other"}))
    merged = phases.groupby(["rank", "step", "phase"], as_index=False).sum(numeric_only=True)
    run = dataclasses.replace(run, phases=conform("phases", merged))

    assert "backward and forward cannot be told apart" in reason(predict(run, {"gradient_accumulation_steps": 2}, CONFIG))


def test_a_learning_rate_that_goes_along_takes_no_time() -> None:
    run, config = sized(earlier=(sized((4,) * 12),)), {**CONFIG, "learning_rate": 0.1}

    alone = predicted(predict(run, {"batch_size": 16}, config))
    together = predicted(predict(run, {"batch_size": 16, "learning_rate": 0.2}, config))

    assert together.after == alone.after
    assert any("learning_rate goes along" in text for text in together.assumptions)
    assert "no model of learning_rate" in reason(predict(run, {"learning_rate": 0.2}, config))


def test_samples_of_a_step_that_nobody_told_are_asked_for() -> None:
    run = dataclasses.replace(sized(), training=Run().training)
    config = {"gradient_accumulation_steps": 1}

    assert "how many it has now is not known" in reason(predict(run, {"gradient_accumulation_steps": 2}, config))
    assert predicted(predict(run, {"gradient_accumulation_steps": 2}, config, metric="step_us")).after / MS == pytest.approx(118)
    assert predicted(predict(run, {"gradient_accumulation_steps": 2}, CONFIG)).after / MS == pytest.approx(118 / 16)


def test_a_metric_without_a_model_is_refused() -> None:
    assert "no model of loss" in reason(predict(sized(), {"batch_size": 16}, CONFIG, metric="loss"))  # type: ignore[arg-type]


def test_a_shadow_is_told_of_a_run_that_is_refused() -> None:
    short = sized((8,) * 6, earlier=(sized((4,) * 12),))

    assert "steady steps" in reason(predict(short, {"batch_size": 16}, CONFIG))
    assert predicted(shadow(short, {"batch_size": 16}, CONFIG)).after / MS == pytest.approx(98 / 16)


def test_what_was_predicted_per_sample_is_verified_per_sample() -> None:
    before, larger = sized((8,) * 40, earlier=(sized((4,) * 12),)), sized((16,) * 40)
    prediction = predicted(predict(before, {"batch_size": 16}, CONFIG))

    outcome = verify(prediction, before, larger, configs=(CONFIG, {**CONFIG, "batch_size": 16}))

    assert outcome.metric == "sample_us"
    assert outcome.before / MS == pytest.approx(66 / 8)
    assert outcome.after / MS == pytest.approx(98 / 16)
    assert outcome.inside
    assert outcome.error_share == pytest.approx(0.0)


def test_without_the_samples_of_a_step_nothing_is_verified_per_sample() -> None:
    run = dataclasses.replace(sized(), training=Run().training)

    with pytest.raises(NoStepsError, match="per sample"):
        verify(Prediction("sample_us", 2.0, 1.0, 1.0, 1.0, "prior"), run, run)
