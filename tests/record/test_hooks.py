"""torch's hooks find the parts of a step in loops of all kinds, change nothing, and leave nothing behind."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from perfnb.record.hooks import COLLECTIVES, Watch  # noqa: E402 - torch decides whether there is anything to test
from perfnb.record.loader_hooks import samples_of  # noqa: E402
from perfnb.record.marks import Marks  # noqa: E402
from perfnb.record.phases import Folded, PhaseFold  # noqa: E402

pytestmark = pytest.mark.torch


class Watched:
    """A watch with what its marks told when it ended."""

    def __init__(self) -> None:
        self.marks = Marks()
        self.edges = 0
        self.watch = Watch(self.marks, self._at_edge)
        self.folded = Folded()

    def _at_edge(self) -> None:
        self.watch.modules.at_edge(self.edges)
        self.edges += 1

    @property
    def steps(self) -> list[tuple[Any, ...]]:
        return self.folded.rows.get("steps", [])

    def phases(self, step: int) -> dict[str, int]:
        return {row[1]: row[2] for row in self.folded.rows.get("phases", []) if row[0] == step}

    def values(self, name: str) -> list[float]:
        return [float(value.value) for value in self.folded.values if value.name == name]


@contextmanager
def watched() -> Iterator[Watched]:
    told = Watched()
    told.watch.install()
    try:
        yield told
    finally:
        told.watch.remove()
        told.folded = PhaseFold().fold(told.marks.taken())
        told.marks.close()


def _model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(inplace=True), torch.nn.Linear(16, 1))


def _loader(batches: int, **named: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(4 * batches, 8, generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows, rows[:, :1]), batch_size=4, **named)


def _train(model: Any, loader: Any, step: Callable[[Any, Any], None] | None = None, **named: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **named)
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()


ALL = {"data", "forward", "backward", "optimizer", "other"}


def test_a_plain_loop_has_every_phase_in_every_step_and_they_sum_to_it() -> None:
    with watched() as told:
        _train(_model(), _loader(12))

    assert len(told.steps) == 12
    for number, start, end, *_ in told.steps:
        assert set(told.phases(number)) == ALL
        assert sum(told.phases(number).values()) == end - start


def test_a_loop_with_workers_is_seen_and_its_workers_known() -> None:
    with watched() as told:
        _train(_model(), _loader(6, num_workers=1))

    assert len(told.steps) == 6
    assert set(told.phases(3)) == ALL
    assert len(told.watch.worker_pids) == 1
    assert told.watch.seen["num_workers"] == 1


def test_an_iterator_made_before_is_seen() -> None:
    batches = iter(_loader(6))

    with watched() as told:
        _train(_model(), batches)

    assert [set(told.phases(number)) for number in range(6)] == [ALL] * 6


def test_an_optimizer_made_before_is_seen() -> None:
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.25)

    with watched() as told:
        for inputs, targets in _loader(3):
            (model(inputs) - targets).square().mean().backward()
            optimizer.step()

    assert told.values("learning_rate") == [0.25] * 3
    assert told.watch.seen["optimizer"] == "adamw"


def test_weights_are_bit_for_bit_those_of_an_unwatched_loop() -> None:
    plain, seen = _model(), _model()

    _train(plain, _loader(12))
    with watched():
        _train(seen, _loader(12))

    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), seen.parameters(), strict=True))


def test_batch_size_epoch_and_micro_batches_are_counted() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    with watched() as told:
        for _ in range(2):
            for number, (inputs, targets) in enumerate(_loader(6)):
                (torch.nn.functional.mse_loss(model(inputs), targets) / 3).backward()
                if number % 3 == 2:
                    optimizer.step()
                    optimizer.zero_grad()

    assert [(row[4], row[5]) for row in told.steps] == [(0, 3), (0, 3), (1, 3), (1, 3)]
    assert told.values("batch_size") == [12.0] * 4
    assert len(told.values("backward_loss")) == 12


def test_the_optimizer_that_stepped_first_ends_the_steps() -> None:
    first, second = _model(), _model()
    generator = torch.optim.SGD(first.parameters(), lr=0.1)
    discriminator = torch.optim.Adam(second.parameters(), lr=0.2)

    with watched() as told:
        for inputs, _ in _loader(5):
            second(inputs).mean().backward()
            discriminator.step()
            first(inputs).mean().backward()
            generator.step()

    assert len(told.steps) == 5
    assert told.watch.optimizers == ["Adam", "SGD"]
    assert told.values("learning_rate") == [0.2] * 5
    assert told.steps[3][5] is None  # two backward passes of two models are no micro-batches


def test_a_closure_inside_the_optimizer_takes_its_time_off() -> None:
    model = _model()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    with watched() as told:
        for inputs, targets in _loader(3):

            def closure(inputs: Any = inputs, targets: Any = targets) -> Any:
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(inputs), targets)
                loss.backward()
                return loss

            optimizer.step(closure)

    assert len(told.steps) == 3
    for number, start, end, *_ in told.steps:
        assert set(told.phases(number)) >= {"forward", "backward", "optimizer"}
        assert sum(told.phases(number).values()) == end - start


def test_a_step_left_out_by_a_gradient_scaler_is_a_step_and_says_so() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    with watched() as told:
        for number, (inputs, targets) in enumerate(_loader(6)):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            scaler.scale(loss * (float("inf") if number == 2 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()

    assert len(told.steps) == 6
    assert [value.step for value in told.folded.values if value.name == "skipped"] == [2]
    assert told.values("loss_scale") == [4.0, 4.0, 4.0, 2.0, 2.0, 2.0]
    assert told.values("backward_loss") == []  # it is scaled


def test_evaluation_is_inference_and_its_batches_are_no_data() -> None:
    model = _model()

    with watched() as told:
        _train(model, _loader(3))
        with torch.no_grad():
            for inputs, _ in _loader(3):
                model(inputs)
        _train(model, _loader(1))

    assert told.watch.seen["dataset_size"] == 4  # of the training's last loader, not of the evaluation's
    evaluated = told.phases(3)
    assert evaluated.keys() == ALL | {"inference"}
    assert evaluated["inference"] > evaluated["forward"]
    assert told.phases(2).keys() == ALL


def test_a_teacher_inside_a_step_is_inference_and_the_student_is_forward() -> None:
    teacher, student = _model(), _model()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)

    with watched() as told:
        for inputs, _ in _loader(12):
            found = student(inputs)
            with torch.no_grad():
                wanted = teacher(inputs)
            (found - wanted).square().mean().backward()
            optimizer.step()

    # also in the steps in which only outermost modules have hooks
    assert [told.phases(step).keys() for step in range(1, 12)] == [ALL | {"inference"}] * 11


def test_waiting_for_batches_to_evaluate_on_is_inference_wherever_gradients_are_off() -> None:
    class Slow(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 2

        def __getitem__(self, _: int) -> Any:
            time.sleep(0.02)
            return torch.zeros(8), torch.zeros(1)

    model = _model()

    with watched() as told:
        _train(model, _loader(3))
        with torch.no_grad():
            for inputs, _ in torch.utils.data.DataLoader(Slow(), batch_size=1):
                model(inputs)
        _train(model, _loader(1))

    assert told.phases(3)["inference"] > 40e6
    assert told.phases(3)["other"] < 40e6
    assert told.watch.seen["dataset_size"] == 4


def test_an_evaluation_that_is_interrupted_hides_no_later_one() -> None:
    class Interrupted(torch.nn.Module):
        def forward(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    model = _model()

    with watched() as told:
        _train(model, _loader(3))
        with torch.no_grad(), pytest.raises(KeyboardInterrupt):
            Interrupted()(torch.zeros(1, 8))
        _train(model, _loader(1))
        with torch.no_grad():
            model(torch.zeros(1, 8))
        _train(model, _loader(1))

    assert told.phases(4).keys() == ALL | {"inference"}


def test_gradients_that_are_switched_on_inside_are_a_forward_pass() -> None:
    class Switches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = _model()

        def forward(self, inputs: Any) -> Any:
            with torch.enable_grad():
                return self.inner(inputs)

    model = Switches()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    with watched() as told:
        for inputs, _ in _loader(4):
            with torch.no_grad():
                found = model(inputs)
            found.mean().backward()
            optimizer.step()

    assert [told.phases(step).keys() for step in (1, 2, 3)] == [ALL | {"inference"}] * 3


def test_an_exception_in_a_forward_pass_leaves_the_next_steps_right() -> None:
    class Fails(torch.nn.Module):
        def forward(self, *_: Any) -> Any:
            raise ValueError

    model = torch.nn.Sequential(torch.nn.Linear(8, 1), Fails())

    with watched() as told:
        for inputs, _ in _loader(2):
            with pytest.raises(ValueError):  # noqa: PT011 - the module's own, without a text
                model(inputs)
        _train(_model(), _loader(3))

    assert [set(told.phases(number)) for number in (1, 2)] == [ALL, ALL]


def test_a_backward_pass_that_fails_leaves_the_next_steps_right() -> None:
    with watched() as told:
        with pytest.raises(RuntimeError):
            torch.zeros(()).backward()
        _train(_model(), _loader(3))

    assert [set(told.phases(number)) for number in (1, 2)] == [ALL, ALL]


def test_a_backward_pass_through_autograd_grad_is_in_an_unsplit_rest() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    with watched() as told:
        for inputs, _ in _loader(3):
            gradients = torch.autograd.grad(model(inputs).mean(), list(model.parameters()))
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

    assert set(told.phases(1)) == {"data", "forward", "optimizer", "unsplit"}


def test_calls_of_functions_of_a_module_do_no_harm() -> None:
    model = _model()
    parameters = dict(model.named_parameters())

    with watched():
        torch.func.functional_call(model, parameters, (torch.zeros(2, 8),))
        torch.func.grad(lambda values: torch.func.functional_call(model, values, (torch.zeros(2, 8),)).sum())(parameters)


def test_a_loop_without_an_optimizer_has_no_steps_but_forward_passes() -> None:
    model = _model()
    fold = PhaseFold()
    marks = Marks()
    watch = Watch(marks, lambda: None)
    watch.install()

    for inputs, _ in _loader(4):
        model(inputs).mean().backward()
    watch.remove()

    assert "steps" not in fold.fold(marks.taken()).rows
    assert fold.forwards == 4


def test_a_module_compiled_while_watched_is_compiled() -> None:
    model = _model()
    compiled = 0

    def backend(graph: Any, _inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return graph.forward

    with watched() as told:
        faster = torch.compile(model, backend=backend)
        _train(faster, _loader(12))
        during = compiled
    faster(torch.zeros(4, 8))

    assert during >= 1
    assert len(told.steps) == 12
    assert set(told.phases(11)) == ALL


def test_only_the_outermost_modules_keep_hooks_after_some_steps() -> None:
    model = _model()

    with watched() as told:
        _train(model, _loader(12))
        kept = [bool(module._forward_pre_hooks) for module in model.modules()]
        searching = torch.nn.modules.module._has_any_global_hook()

    assert kept == [True, False, False, False]
    assert not searching
    assert told.phases(11)["forward"] > 0


def test_nothing_is_left_behind() -> None:
    before = _registries()
    model = _model()

    with watched():
        assert _registries() != before
        _train(model, _loader(8))

    assert _registries() == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert "__iter__" in vars(torch.utils.data.DataLoader)


def _registries() -> list[Any]:
    module, optimizers = torch.nn.modules.module, sys.modules["torch.optim.optimizer"]  # torch.optim hides its name
    return [
        len(module._global_forward_hooks),
        len(module._global_forward_pre_hooks),
        len(optimizers._global_optimizer_pre_hooks),
        len(optimizers._global_optimizer_post_hooks),
        torch.autograd.backward,
        torch.nn.utils.clip_grad_norm_,
        torch.utils.data.DataLoader.__iter__,
        torch.utils.data.dataloader._BaseDataLoaderIter.__next__,
        torch.amp.GradScaler.step,
        *(getattr(torch.distributed, name) for name in COLLECTIVES),
    ]


def test_another_function_put_over_ours_stays_and_ours_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.autograd.backward
    calls = itertools.count()

    with watched() as told:
        ours = torch.autograd.backward

        def outer(*arguments: Any, **named: Any) -> Any:
            next(calls)
            return ours(*arguments, **named)

        monkeypatch.setattr(torch.autograd, "backward", outer)
        _train(_model(), _loader(2))
    _train(_model(), _loader(2))

    assert torch.autograd.backward is outer
    assert next(calls) == 4
    assert len(told.steps) == 2
    monkeypatch.setattr(torch.autograd, "backward", original)


def test_training_in_another_thread_is_not_seen() -> None:
    with watched() as told:
        thread = threading.Thread(target=_train, args=(_model(), _loader(3)))
        thread.start()
        thread.join()

    assert told.steps == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_not_seen() -> None:
    with watched() as told:
        child = os.fork()
        if not child:
            _train(_model(), _loader(1))
            os._exit(len(told.marks.taken()))
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_gradient_norm_and_its_limit_are_seen_where_gradients_are_clipped() -> None:
    model = _model()

    with watched() as told:
        for inputs, _ in _loader(3):
            model(inputs).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            torch.optim.SGD(model.parameters(), lr=0.1).step()

    assert told.values("clip_norm") == [0.5] * 3
    assert all(norm > 0 for norm in told.values("gradient_norm"))


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (torch.zeros(3, 2), 3),
        ([torch.zeros(4, 2), torch.zeros(4)], 4),
        ({"input_ids": torch.zeros(5, 2)}, 5),
        ([{"image": torch.zeros(6, 1)}], 6),
        (torch.zeros(()), None),
        (["a", "b"], None),
        ({}, None),
    ],
)
def test_samples_of_a_batch(batch: Any, samples: int | None) -> None:
    assert samples_of(batch) == samples
