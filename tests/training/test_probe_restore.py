"""After a probe the training goes on as if there had been none, whatever it is made of and however the probe ended."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perfnb.errors import ProbeRefused, RestoreFailed  # noqa: E402 - torch first: without it nothing here can run
from perfnb.training.probe import ProbeProgress, probe  # noqa: E402
from perfnb.training.probe_snapshot import Snapshot  # noqa: E402
from perfnb.training.probe_state import TrainingState  # noqa: E402

pytestmark = pytest.mark.torch

Step = Callable[[Any], Any]
NEXT = 20


class Net(torch.nn.Module):
    """Dropout, batch norm, a counter, a hidden state and a value that only some steps create."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.hidden = torch.zeros(8)
        self.inner = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3)
        )

    def forward(self, x: Any) -> Any:
        self.calls += 1
        if self.calls > 9:
            self.late = self.calls
        made = self.inner[:-1](x) * (1.0 + 0.01 * self.calls)
        self.hidden = 0.9 * self.hidden + 0.1 * made.detach().mean(dim=0)
        return self.inner[-1](made + self.hidden)


def loader(*, shuffle: bool, generator: Any = None, count: int = 12) -> Any:
    torch.manual_seed(7)
    x, y = torch.randn(8 * count, 6), torch.randint(0, 3, (8 * count,))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8, shuffle=shuffle, generator=generator)


def training(optimizer: str = "adamw", scheduler: str = "cosine", *, scales: bool = False) -> tuple[TrainingState, Step]:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the random state of all is meant
    model = Net()
    made = {
        "adamw": lambda: torch.optim.AdamW(model.parameters(), lr=1e-2),
        "tensor rate": lambda: torch.optim.Adam(model.parameters(), lr=torch.tensor(1e-2)),
        "momentum": lambda: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9),
        "lbfgs": lambda: torch.optim.LBFGS(model.parameters(), lr=1e-2, max_iter=2, history_size=3),
    }[optimizer]()
    schedules = torch.optim.lr_scheduler
    schedule = {
        "none": lambda: None,
        "cosine": lambda: schedules.CosineAnnealingLR(made, 60),
        "one cycle": lambda: schedules.OneCycleLR(made, 0.1, total_steps=200),
        "warm-up, then steps": lambda: schedules.SequentialLR(
            made, [schedules.LinearLR(made, 0.1, total_iters=15), schedules.StepLR(made, 3, 0.9)], milestones=[15]
        ),
        "plateau": lambda: schedules.ReduceLROnPlateau(made, patience=1),
    }[scheduler]()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=3) if scales else None

    def loss_of(batch: Any) -> Any:
        made.zero_grad()
        noise = random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002 - the random state of all is meant
        loss = torch.nn.functional.cross_entropy(model(batch[0] + 0.01 * noise), batch[1])
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    def step(batch: Any) -> Any:
        if optimizer == "lbfgs":
            loss = made.step(lambda: loss_of(batch))
        else:
            loss = loss_of(batch)
            if scaler is None:
                made.step()
            else:
                scaler.step(made)
                scaler.update()
        if schedule is not None:
            schedule.step(*([float(loss.detach())] if scheduler == "plateau" else []))
        return loss

    return TrainingState(model, made, schedule, scaler), step


def losses(step: Step, batches: Any, count: int = NEXT) -> list[float]:
    return [float(step(batch).detach()) for batch in islice(batches, count)]


def epochs(of: Any) -> Iterator[Any]:
    while True:
        yield from of


def probed(step: Step, state: TrainingState, batches: Any, **more: Any) -> Any:
    return probe(step, state, [0.4, 2.5], 12, batches, shows_progress=False, **more)


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "order", "scaling"),
    [
        ("adamw", "cosine", "shuffled", "scaled"),
        ("adamw", "cosine", "in order", "not scaled"),
        ("tensor rate", "none", "in order", "scaled"),
        ("momentum", "one cycle", "shuffled", "not scaled"),
        ("adamw", "warm-up, then steps", "in order", "scaled"),
        ("momentum", "plateau", "shuffled", "scaled"),
    ],
)
def test_the_next_losses_are_those_of_a_run_without_a_probe(optimizer: str, scheduler: str, order: str, scaling: str) -> None:
    told = []
    for is_probed in (False, True):
        batches = loader(shuffle=order == "shuffled")
        state, step = training(optimizer, scheduler, scales=scaling == "scaled")
        losses(step, batches, 12)
        if is_probed:
            probed(step, state, batches)

        told.append(losses(step, epochs(batches)))

    assert told[0] == told[1]


def test_an_optimizer_that_keeps_lists_of_tensors_is_put_back() -> None:
    told = []
    for is_probed in (False, True):
        batches = loader(shuffle=False)
        state, step = training("lbfgs", "none")
        losses(step, batches, 6)
        if is_probed:
            probed(step, state, batches)

        told.append(losses(step, epochs(batches)))

    assert told[0] == told[1]


def test_the_order_of_a_loader_with_its_own_generator_is_put_back() -> None:
    told = []
    for is_probed in (False, True):
        batches = loader(shuffle=True, generator=torch.Generator().manual_seed(3))
        state, step = training()
        if is_probed:
            probed(step, state, batches)

        told.append(losses(step, epochs(batches)))

    assert told[0] == told[1]


def test_batches_that_were_taken_from_an_iterator_are_handed_back() -> None:
    told = []
    for is_probed in (False, True):
        batches = iter(epochs(loader(shuffle=True, count=20)))
        state, step = training()
        losses(step, batches, 5)
        taken = probed(step, state, batches).batches if is_probed else ()

        told.append(losses(step, chain(taken, batches)))

    assert told[0] == told[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("at", [5, 20, 30])
def test_what_ends_a_probe_comes_after_everything_was_put_back(error: type[BaseException], at: int) -> None:
    told = []
    for is_probed in (False, True):
        batches = loader(shuffle=True)
        state, step = training(scales=True)
        losses(step, batches, 4)
        calls = 0

        def failing(batch: Any, step: Step = step) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise error
            return step(batch)

        if is_probed:
            with pytest.raises(error):
                probed(failing, state, batches)

        told.append(losses(step, epochs(batches)))

    assert told[0] == told[1]


def test_a_probe_that_is_refused_half_way_leaves_the_training_as_it_was() -> None:
    batches = list(loader(shuffle=False))
    state, step = training()
    before = [each.detach().clone() for each in state.model.parameters()]

    with pytest.raises(ProbeRefused, match="there are 12 batches of the 13 asked for"):
        probe(step, state, [0.4], 13, batches)
    with pytest.raises(ProbeRefused, match="returns a tensor of 3 values"):
        probe(lambda batch: step(batch).repeat(3), state, [0.4], 12, batches)

    assert all(torch.equal(one, other) for one, other in zip(before, state.model.parameters(), strict=True))


def test_with_keep_base_the_training_stands_after_the_steps_with_the_present_setting() -> None:
    told = []
    for is_probed in (False, True):
        batches = list(loader(shuffle=False))
        state, step = training()
        if is_probed:
            probed(step, state, batches, keep="base")
        else:
            losses(step, batches, 12)

        told.append(losses(step, batches, 12))

    assert told[0] == told[1]


def test_a_bfloat16_model_with_float32_state_keeps_its_state() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2).to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    averages = {each: torch.zeros(each.shape) for each in model.parameters()}
    for parameter, average in averages.items():
        optimizer.state[parameter] = {"average": average}
    batches = [torch.randn(3, 4, dtype=torch.bfloat16) for _ in range(10)]

    def step(batch: Any) -> Any:
        optimizer.zero_grad()
        loss = model(batch).float().pow(2).mean()
        loss.backward()
        for parameter in model.parameters():
            optimizer.state[parameter]["average"] += parameter.grad.float()
        optimizer.step()
        return loss

    step(batches[0])
    before = {each: average.clone() for each, average in averages.items()}
    probe(step, TrainingState(model, optimizer), [0.5], 10, batches, shows_progress=False)

    for parameter, average in averages.items():
        assert optimizer.state[parameter]["average"] is average
        assert average.dtype == torch.float32
        assert torch.equal(average, before[parameter])


def test_extra_state_is_put_back() -> None:
    state, step = training()
    average = torch.optim.swa_utils.AveragedModel(state.model)
    generators = torch.Generator().manual_seed(1), np.random.default_rng(1)

    class Counter:
        count = 0

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count, "nan": float("nan"), "array": np.arange(2)}

        def load_state_dict(self, told: dict[str, Any]) -> None:
            self.count = told["count"]

    counter = Counter()

    def whole(batch: Any) -> Any:
        loss = step(batch)
        average.update_parameters(state.model)
        counter.count += 1
        torch.rand(1, generator=generators[0])
        generators[1].random()
        return loss

    extra = (average, counter, *generators)
    drawn = [generators[0].get_state(), generators[1].bit_generator.state]
    probe(
        whole,
        TrainingState(state.model, state.optimizer, state.scheduler, extra=extra),
        [2.0],
        10,
        loader(shuffle=False),
        shows_progress=False,
    )

    assert int(average.n_averaged) == counter.count == 0
    assert torch.equal(drawn[0], generators[0].get_state())
    assert drawn[1] == generators[1].bit_generator.state
    with pytest.raises(ProbeRefused, match="extra holds a object"):
        Snapshot(TrainingState(state.model, state.optimizer, extra=(object(),)))


def test_a_gradient_that_was_there_is_there_again_a_sparse_one_too() -> None:
    torch.manual_seed(0)
    model = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch: Any) -> Any:
        optimizer.zero_grad()
        loss = model(batch).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    batches = [torch.tensor([number % 5]) for number in range(10)]
    step(batches[3])
    before = model.weight.grad.to_dense().clone()

    probe(step, TrainingState(model, optimizer), [0.5], 10, batches, shows_progress=False)

    assert torch.equal(model.weight.grad.to_dense(), before)


def test_a_tensor_that_changed_its_shape_is_named() -> None:
    state, _ = training()
    snapshot = Snapshot(state)
    with torch.no_grad():
        state.model.inner[0].weight.data = torch.zeros(2, 2)

    with pytest.raises(RestoreFailed, match=r"model\.inner\.0\.weight cannot be put back"):
        snapshot.restore()


def test_bits_that_differ_are_named() -> None:
    state, _ = training()
    snapshot = Snapshot(state, on_host=False)
    random.random()
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter[0] = float("nan")

    with pytest.raises(RestoreFailed, match=r"model\.inner\.0\.weight, .* and 2 more"):
        snapshot.check()


def test_an_interrupt_while_state_is_put_back_comes_after_it_was() -> None:
    state, _ = training()
    snapshot = Snapshot(state)
    before = state.model.inner[0].weight.detach().clone()
    with torch.no_grad():
        state.model.inner[0].weight += 1.0
    calls = []

    def interrupted() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    snapshot._restores.insert(0, interrupted)

    with pytest.raises(KeyboardInterrupt):
        snapshot.restore()
    assert len(calls) == 2
    assert torch.equal(state.model.inner[0].weight, before)


def test_a_callback_hears_of_every_ten_steps_and_can_end_the_probe() -> None:
    state, step = training()
    heard: list[ProbeProgress] = []

    def stop(progress: ProbeProgress) -> None:
        heard.append(progress)
        if progress.change == "x0.4":
            raise KeyboardInterrupt

    batches = list(loader(shuffle=False))
    before = state.model.inner[0].weight.detach().clone()
    with pytest.raises(KeyboardInterrupt):
        probed(step, state, batches, on_progress=stop)

    assert [(each.change, each.done_steps, each.all_steps) for each in heard] == [
        ("x1", 10, 36),
        ("x1", 12, 36),
        ("x0.4", 22, 36),
    ]
    assert torch.equal(state.model.inner[0].weight, before)
