"""Precision, layout, optimizer, threads and what backward computes again on a CPU job, worked out by hand in milliseconds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pandas as pd
import pytest

from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform
from perfnb.whatif.compute_knobs import LAYOUT_ERROR, OPTIMIZER_ERROR
from perfnb.whatif.sequence_knobs import PADDING_ERROR
from perfnb.whatif.step_model import predict, shadow

MS = 1000.0
CONFIG = {
    "precision": "fp32",
    "memory_format": "contiguous",
    "optimizer_implementation": "loop",
    "activation_checkpointing": "none",
    "group_by_length": False,
    "pack_sequences": False,
}
PHASES = {"forward": 30.0, "backward": 50.0, "optimizer": 16.0, "other": 4.0}


def run_of(constants: dict[str, float] | None = None, *, lengths: tuple[float, ...] = (), **phases: float) -> Run:
    """Twelve steps of 30 forward, 50 backward, 16 optimizer and 4 of the rest; with lengths, padded tokens of each step."""
    times = PHASES | phases
    scales = [length / 80.0 for length in lengths] or [1.0] * 12
    steps, rows, start = [], [], 0.0
    for number, scale in enumerate(scales):
        own = {phase: time * (scale if phase in ("forward", "backward") else 1.0) for phase, time in times.items()}
        steps.append((0, number, start * MS, sum(own.values()) * MS))
        rows += [(0, number, phase, time * MS, time * MS, 0.0, 0.0) for phase, time in own.items()]
        start += sum(own.values())
    training = pd.DataFrame(
        {"rank": 0, "step": range(len(lengths)), "padded_tokens": lengths, "tokens": [0.6 * length for length in lengths]}
    )
    return Run(
        steps=conform("steps", pd.DataFrame(steps, columns=["rank", "step", "start_us", "duration_us"])),
        phases=conform(
            "phases", pd.DataFrame(rows, columns=["rank", "step", "phase", "wall_us", "cpu_us", "runqueue_us", "blocked_us"])
        ),
        training=conform("training", training) if lengths else Run().training,
        machine=Machine(constants={f"machine.{name}": value for name, value in (constants or {}).items()}),
        signals=frozenset({"steps", "phases"}),
    )


def predicted(answer: Prediction | Unknown) -> Prediction:
    assert isinstance(answer, Prediction), answer
    return answer


def reason(answer: Prediction | Unknown) -> str:
    assert isinstance(answer, Unknown), answer
    assert answer.needs
    return answer.reason


def after_ms(changes: dict[str, Any], constants: dict[str, float] | None = None) -> float:
    return predicted(predict(run_of(constants), changes, CONFIG)).after / MS


def test_an_update_takes_the_share_that_was_measured() -> None:
    constants = {"update.fused.ratio": 0.25, "update.fused.ratio.low": 0.2, "update.fused.ratio.high": 0.5}

    answer = predicted(predict(run_of(constants), {"optimizer_implementation": "fused"}, CONFIG))

    assert answer.after / MS == pytest.approx(84 + 4)
    assert answer.high / MS == pytest.approx(88 * math.exp(math.hypot(OPTIMIZER_ERROR, math.log(92 / 88))))


def test_of_an_update_that_was_not_measured_any_share_may_stay() -> None:
    answer = predicted(predict(run_of(), {"optimizer_implementation": "fused"}, CONFIG))

    assert answer.after / MS == pytest.approx(84 + 8)
    assert answer.low / MS == pytest.approx(92 * math.exp(-math.hypot(OPTIMIZER_ERROR, math.log(92 / 84))))


def test_from_foreach_the_two_measured_shares_are_divided() -> None:
    run, change = (
        run_of({"update.fused.ratio": 0.25, "update.foreach.ratio": 0.5}),
        Change("optimizer_implementation", "foreach", "fused"),
    )

    assert predicted(predict(run, [change], {})).after / MS == pytest.approx(84 + 8)


def test_other_implementations_are_refused() -> None:
    assert "foreach is on a CPU was not measured" in reason(predict(run_of(), {"optimizer_implementation": "foreach"}, CONFIG))
    assert "are modelled" in reason(predict(run_of(), {"optimizer_implementation": "apex"}, CONFIG))


def test_layers_that_were_timed_tell_what_bf16_does() -> None:
    constants = {"layers.bf16.ratio": 0.5, "layers.fp32.us": 60 * MS}

    # 60 of 80 in the layers, which halve; the rest of 20 is taken to stay
    assert after_ms({"precision": "bf16"}, constants) == pytest.approx(20 + 30 + 20)


def test_a_model_that_was_timed_as_a_whole_counts_before_its_layers() -> None:
    constants = {"model.bf16.ratio": 2.5, "model.fp32.us": 60 * MS, "layers.bf16.ratio": 0.5, "layers.fp32.us": 60 * MS}

    # 60 of the 80 of forward and backward are the model's; the loss, in what is left, is taken to stay
    assert after_ms({"precision": "bf16"}, constants) == pytest.approx(20 + 150 + 20)
    answer = predicted(predict(run_of(constants), {"precision": "bf16"}, CONFIG))
    assert any("2.50 times as long" in text and "75%" in text for text in answer.assumptions)


def test_images_channels_last_as_the_model_was_timed() -> None:
    constants = {"model.channels_last.ratio": 0.5, "model.fp32.us": 100 * MS}

    assert after_ms({"memory_format": "channels_last"}, constants) == pytest.approx(20 + 40)


def test_one_shape_that_was_timed_leaves_the_share_of_products_open() -> None:
    answer = predicted(predict(run_of({"gemm.bfloat16.speedup": 2.0}), {"precision": "bf16"}, CONFIG))

    assert answer.after / MS == pytest.approx(20 + 80 * (0.75 * 0.5 + 0.25))
    assert any("of one shape" in text for text in answer.assumptions)


def test_a_slow_bf16_is_predicted_to_be_slower() -> None:
    constants = {"layers.bf16.ratio": 3.0, "layers.fp32.us": 80 * MS}

    answer = predicted(predict(run_of(constants), {"precision": "bf16"}, CONFIG))

    assert answer.after / MS == pytest.approx(20 + 240)
    assert answer.verdict == "slower"


@pytest.mark.parametrize(
    ("after", "words"), [("fp16", "gradient scaler"), ("fp8", "only fp32 to bf16"), ("bf16", "was not measured")]
)
def test_precision_is_refused_where_nothing_was_measured(after: str, words: str) -> None:
    assert words in reason(predict(run_of(), {"precision": after}, CONFIG))


def test_fp16_with_a_scaler_is_refused_on_a_cpu() -> None:
    assert "other ways" in reason(predict(run_of(), {"precision": "fp16"}, {**CONFIG, "gradient_scaler": True}))


def test_constants_of_a_busy_machine_are_for_shadows_only() -> None:
    run = run_of({"layers.bf16.ratio": 0.5, "layers.fp32.us": 60 * MS, "pressure_cpu_share": 0.5})

    assert "busy machine" in reason(predict(run, {"precision": "bf16"}, CONFIG))
    assert predicted(shadow(run, {"precision": "bf16"}, CONFIG)).after / MS == pytest.approx(70)


def test_convolutions_take_the_share_that_was_measured_channels_last() -> None:
    constants = {"layers.channels_last.ratio": 0.8, "layers.convolutions.fp32.us": 40 * MS}

    answer = predicted(predict(run_of(constants), {"memory_format": "channels_last"}, CONFIG))

    assert answer.after / MS == pytest.approx(100 - 40 * 0.2)
    assert answer.low / MS == pytest.approx(92 * math.exp(-LAYOUT_ERROR))
    assert "only channels_last" in reason(predict(run_of(), {"memory_format": "blocked"}, CONFIG))
    assert "was not measured" in reason(predict(run_of(), {"memory_format": "channels_last"}, CONFIG))


def test_accumulated_layers_run_as_often_as_micro_batches() -> None:
    run = run_of({"layers.channels_last.ratio": 0.5, "layers.convolutions.fp32.us": 20 * MS})

    answer = predicted(predict(run, {"memory_format": "channels_last"}, {**CONFIG, "gradient_accumulation_steps": 2}))

    assert answer.after / MS == pytest.approx(100 - 2 * 20 * 0.5)


def test_backward_computes_forward_again() -> None:
    full = predicted(predict(run_of(), {"activation_checkpointing": "full"}, CONFIG))

    assert full.after / MS == pytest.approx(100 + 30)
    assert full.low / MS < 100 + 0.8 * 30
    assert after_ms({"activation_checkpointing": "selective"}) == pytest.approx(100 + 15)


def test_what_backward_no_longer_computes_again_goes() -> None:
    config = {**CONFIG, "activation_checkpointing": "full"}

    assert predicted(predict(run_of(), {"activation_checkpointing": "none"}, config)).after / MS == pytest.approx(70)
    assert predicted(predict(run_of(), {"activation_checkpointing": "selective"}, config)).after / MS == pytest.approx(85)
    assert "are modelled" in reason(predict(run_of(), {"activation_checkpointing": "some"}, CONFIG))


def test_edits_of_one_phase_multiply() -> None:
    constants = {"layers.channels_last.ratio": 0.5, "layers.convolutions.fp32.us": 80 * MS}

    # backward 50 + 30, forward 30, all of it halved
    assert after_ms({"activation_checkpointing": "full", "memory_format": "channels_last"}, constants) == pytest.approx(20 + 55)


LENGTHS = tuple(float(60 + 10 * (number % 5)) for number in range(12))


def test_padding_that_goes_takes_its_time_along() -> None:
    run = run_of(lengths=LENGTHS)
    before = float(run.steps["duration_us"].iloc[1:].mean()) / MS

    answer = predicted(predict(run, {"pack_sequences": True}, CONFIG))

    # all of forward and backward grows with the padded tokens, 40 % of which are padding, 95 % of that goes
    assert answer.after / MS == pytest.approx(20 + (before - 20) * (1 - 0.95 * 0.4))
    assert answer.spread > PADDING_ERROR


def test_two_cures_of_the_padding_share_its_gain() -> None:
    run = run_of(lengths=LENGTHS)

    packed = predicted(predict(run, {"pack_sequences": True}, CONFIG))
    both = predicted(predict(run, {"pack_sequences": True, "group_by_length": True}, CONFIG))

    assert both.after == pytest.approx(packed.after)


def test_lengths_that_hardly_differ_leave_the_line_to_a_prior() -> None:
    answer = predicted(predict(run_of(lengths=(80.0,) * 12), {"group_by_length": True}, CONFIG))

    assert answer.after / MS == pytest.approx(20 + 80 * (1 - 0.8 * 0.8 * 0.4))


def test_padding_that_was_not_told_or_does_not_matter_is_refused() -> None:
    run = run_of(lengths=LENGTHS)
    shuffled = dataclasses.replace(
        run, training=run.training.assign(padded_tokens=run.training["padded_tokens"].to_numpy()[::-1])
    )

    assert "is not known" in reason(predict(run_of(), {"group_by_length": True}, CONFIG))
    assert "do not follow" in reason(predict(shuffled, {"group_by_length": True}, CONFIG))
    assert "is not known" in reason(predict(run, {"group_by_length": False}, {"group_by_length": True}))


def test_threads_below_the_cores_scale_as_three_kinds_of_work_did() -> None:
    speedups = {"threads.1.gemm": 1.0, "threads.4.gemm": 4.0, "threads.1.small": 1.0, "threads.4.small": 1.0}
    speedups |= {"threads.1.elementwise": 1.0, "threads.4.elementwise": 2.0}
    run = run_of({f"{name}_speedup": value for name, value in speedups.items()})
    run = dataclasses.replace(run, machine=dataclasses.replace(run.machine, cpu_capacity=4.0))

    answer = predicted(predict(run, {"torch_num_threads": 4}, {"torch_num_threads": 1}))

    # forward, backward and optimizer, 96 of 100, between a quarter and all of their time: half in the middle
    assert answer.after / MS == pytest.approx(4 + 96 / 2)
    assert answer.low / MS < 4 + 96 / 4
    assert answer.high / MS > 100
    assert "was not measured" in reason(predict(run, {"torch_num_threads": 2}, {"torch_num_threads": 1}))


def test_threads_that_the_model_was_timed_with_count_first_also_where_they_crowd_the_cores() -> None:
    run = run_of({"model.threads.4.ratio": 1.5, "model.threads.2.ratio": 1.0, "threads.2.gemm_speedup": 9.0})
    run = dataclasses.replace(run, machine=dataclasses.replace(run.machine, cpu_capacity=2.0))

    fewer = predicted(predict(run, {"torch_num_threads": 2}, {"torch_num_threads": 4}))
    more = predicted(predict(run, {"torch_num_threads": 4}, {"torch_num_threads": 2}))

    assert fewer.after / MS == pytest.approx(4 + 96 / 1.5)
    assert more.after / MS == pytest.approx(4 + 96 * 1.5)
    assert more.verdict == "slower"
