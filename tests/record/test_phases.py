"""Marks become steps and exclusive phases that sum to them."""

from __future__ import annotations

from perfnb.record.marks import Code, Mark
from perfnb.record.phase_names import SCALED_STEP
from perfnb.record.phases import Folded, PhaseFold

ENTER, LEAVE, EDGE = Code.ENTER, Code.LEAVE, Code.EDGE


def _marks(*told: tuple[int, object, int]) -> list[Mark]:
    """Marks at moments of a fake clock; CPU runs at half its speed, a tenth is spent waiting for a core."""
    return [(code, what, ns, ns // 2, b"%d %d 1\n" % (ns // 2, ns // 10)) for code, what, ns in told]


def _step(start: int) -> list[tuple[int, object, int]]:
    """A plain step of 1000 ns from `start`: data 100, forward 200, backward 300, optimizer 150, the rest elsewhere."""
    moments = [("data", 50, 150), ("forward", 200, 400), ("backward", 410, 710)]
    told: list[tuple[int, object, int]] = []
    for phase, low, high in moments:
        told += [(ENTER, phase, start + low), (LEAVE, phase, start + high)]
    return [*told, (ENTER, "optimizer", start + 850), (EDGE, "optimizer", start + 1000)]


def _walls(folded: Folded, step: int) -> dict[str, int]:
    return {phase: wall for number, phase, wall, *_ in folded.rows["phases"] if number == step}


def test_a_plain_step_is_split_into_its_phases_and_the_rest() -> None:
    fold = PhaseFold()

    folded = fold.fold(_marks(*_step(0), *_step(1000)))

    assert [(row[0], row[1], row[2]) for row in folded.rows["steps"]] == [(0, 50, 1000), (1, 1000, 2000)]
    assert _walls(folded, 1) == {"data": 100, "forward": 210, "backward": 300, "optimizer": 150, "other": 240}  # the loss: 10


def test_what_follows_a_forward_pass_is_of_the_loss_only_where_backward_comes_next() -> None:
    told = [
        (ENTER, "forward", 0),
        (LEAVE, "forward", 10),
        (ENTER, "inference", 12),
        (LEAVE, "inference", 15),
        (ENTER, "backward", 20),
        (LEAVE, "backward", 30),
        (ENTER, "forward", 30),
        (LEAVE, "forward", 40),
        (ENTER, "data", 45),
        (LEAVE, "data", 50),
        (ENTER, "optimizer", 50),
        (EDGE, "optimizer", 60),
    ]

    folded = PhaseFold().fold(_marks(*told))

    assert _walls(folded, 0) == {"forward": 27, "inference": 3, "other": 5, "backward": 10, "data": 5, "optimizer": 10}


def test_cpu_and_run_queue_go_with_their_phase() -> None:
    folded = PhaseFold().fold(_marks(*_step(0), *_step(1000)))

    data = next(row for row in folded.rows["phases"] if row[0] == 1 and row[1] == "data")
    assert data == (1, "data", 100, 50, 10, None)


def test_a_clock_without_run_queue_says_none_not_zero() -> None:
    marks = [(*mark[:4], None) for mark in _marks(*_step(0))]

    folded = PhaseFold().fold(marks)

    assert {row[4] for row in folded.rows["phases"]} == {None}


def test_a_phase_inside_another_takes_its_time_from_it() -> None:
    told = [
        (ENTER, "optimizer", 0),
        (ENTER, "forward", 10),
        (LEAVE, "forward", 30),
        (ENTER, "backward", 30),
        (LEAVE, "backward", 70),
        (EDGE, "optimizer", 100),
    ]

    folded = PhaseFold().fold(_marks(*told))

    assert _walls(folded, 0) == {"optimizer": 40, "forward": 20, "backward": 40}


def test_the_cut_of_the_marks_into_deliveries_changes_nothing() -> None:
    marks = _marks(*_step(0), *_step(1000), *_step(2000))
    fold = PhaseFold()

    rows = [row for mark in marks for row in fold.fold([mark]).rows.get("phases", [])]

    assert rows == PhaseFold().fold(marks).rows["phases"]


def test_a_phase_left_open_by_an_exception_ends_with_the_one_round_it() -> None:
    told = [(ENTER, "data", 0), (LEAVE, "data", 10), (ENTER, "mine", 10), (ENTER, "forward", 20), (LEAVE, "mine", 50), *_step(50)]

    folded = PhaseFold().fold(_marks(*told))

    assert _walls(folded, 0)["mine"] == 10
    assert _walls(folded, 0)["forward"] == 30 + 200 + 10  # and the loss


def test_a_step_of_which_the_forward_pass_was_not_seen_has_an_unsplit_rest() -> None:
    told = [mark for mark in _step(0) if mark[1] != "forward"]

    folded = PhaseFold().fold(_marks(*told))

    assert "other" not in _walls(folded, 0)
    assert _walls(folded, 0)["unsplit"] == 1000 - 50 - 100 - 300 - 150


def test_micro_batches_and_their_samples_are_added_up() -> None:
    told = [
        (Code.BATCH, 8, 1),
        (ENTER, "backward", 2),
        (LEAVE, "backward", 3),
        (Code.BATCH, 6, 4),
        (ENTER, "backward", 5),
        (LEAVE, "backward", 6),
        (ENTER, "optimizer", 7),
        (EDGE, "optimizer", 8),
    ]

    folded = PhaseFold().fold(_marks(*told))

    assert folded.rows["steps"][0][-1] == 2
    assert {value.name: value.value for value in folded.values} == {"batch_size": 14, "micro_batches": 2}


def test_what_a_scaler_does_round_the_optimizer_belongs_to_it() -> None:
    told = [
        (ENTER, "backward", 0),
        (LEAVE, "backward", 10),
        (ENTER, SCALED_STEP, 10),
        (ENTER, "optimizer", 15),
        (LEAVE, "optimizer", 25),
        (EDGE, SCALED_STEP, 30),
    ]

    folded = PhaseFold().fold(_marks(*told))

    assert _walls(folded, 0) == {"backward": 10, "optimizer": 20}


def test_a_skipped_step_says_so() -> None:
    told = [(ENTER, SCALED_STEP, 0), (Code.SKIPPED, None, 5), (EDGE, SCALED_STEP, 10), *_step(10)]

    folded = PhaseFold().fold(_marks(*told))

    assert [(value.step, value.name) for value in folded.values if value.name == "skipped"] == [(0, "skipped")]


def test_a_value_given_between_two_steps_belongs_to_the_one_that_ended() -> None:
    marks = _marks(*_step(0), (Code.VALUE, ("loss", 0.5, True, None), 1010), *_step(1000))

    values = PhaseFold().fold(marks).values

    assert [(value.step, value.value) for value in values if value.name == "loss"] == [(0, 0.5)]


def test_a_validation_loss_between_two_steps_belongs_to_the_one_that_ended() -> None:
    evaluation: list[tuple[int, object, int]] = [(ENTER, "inference", 2010), (LEAVE, "inference", 2090)]
    value = (Code.VALUE, ("validation_loss", 0.5, True, None), 2095)

    folded = PhaseFold().fold(_marks(*_step(0), *_step(1000), *evaluation, value, *_step(2100)))

    assert [(each.step, each.name) for each in folded.values if each.name == "validation_loss"] == [(1, "validation_loss")]
    assert _walls(folded, 2)["inference"] == 80


def test_a_value_of_an_evaluation_belongs_to_the_step_that_ended_and_one_of_a_rollout_to_the_next() -> None:
    batch: list[tuple[int, object, int]] = [(ENTER, ("data", 7), 2010), (LEAVE, ("data", 7), 2020)]
    inference: list[tuple[int, object, int]] = [(ENTER, "inference", 2020), (LEAVE, "inference", 2090)]
    values: list[tuple[int, object, int]] = [
        (Code.VALUE, (name, 0.5, True, None), 2095) for name in ("val_loss", "reward", "value_loss")
    ]

    folded = PhaseFold().fold(_marks(*_step(0), *_step(1000), *batch, *inference, *values, *_step(2100)))

    assert {each.name: each.step for each in folded.values if each.value == 0.5} == {"val_loss": 1, "reward": 2, "value_loss": 2}


def test_inference_inside_another_phase_is_part_of_it() -> None:
    told = [
        (ENTER, "validate", 0),
        (ENTER, "inference", 10),
        (LEAVE, "inference", 40),
        (LEAVE, "validate", 50),
        (ENTER, ("data", 1), 50),
        (ENTER, "inference", 60),
        (LEAVE, "inference", 70),
        (LEAVE, ("data", 1), 80),
        (ENTER, "inference data", 80),
        (ENTER, "inference", 85),
        (LEAVE, "inference", 95),
        (LEAVE, "inference data", 100),
        (ENTER, "backward", 100),
        (LEAVE, "backward", 105),
        (ENTER, "optimizer", 105),
        (EDGE, "optimizer", 110),
    ]

    walls = _walls(PhaseFold().fold(_marks(*told)), 0)

    assert walls == {"validate": 50, "data": 30, "inference": 20, "backward": 5, "optimizer": 5}


def test_a_value_given_within_a_step_belongs_to_it() -> None:
    told = _step(1000)
    marks = _marks(*_step(0), *told[:4], (Code.VALUE, ("loss", 0.5, True, None), 1405), *told[4:])

    values = PhaseFold().fold(marks).values

    assert [value.step for value in values if value.name == "loss"] == [1]


def test_steps_under_a_profiler_are_marked_and_so_is_the_one_in_which_it_ends() -> None:
    on, off = (Code.PROFILER, 1, 1000), (Code.PROFILER, 0, 2000)

    folded = PhaseFold().fold(_marks(*_step(0), on, *_step(1000), off, *_step(2000), *_step(3000)))

    assert [row[3] for row in folded.rows["steps"]] == [False, True, True, False]


def test_what_ends_without_an_optimizer_step_is_no_step() -> None:
    fold = PhaseFold()

    folded = fold.fold(_marks(*_step(0), (ENTER, "data", 1001), (LEAVE, "data", 1002), (Code.END, None, 1003)))

    assert len(folded.rows["steps"]) == 1


def test_a_phase_of_the_users_may_span_steps() -> None:
    told = [(ENTER, "warm up", 0), *_step(0), *_step(1000), (LEAVE, "warm up", 2500), *_step(3000)]

    folded = PhaseFold().fold(_marks(*told))

    assert _walls(folded, 1)["warm up"] == 250
    assert _walls(folded, 2)["warm up"] == 500
