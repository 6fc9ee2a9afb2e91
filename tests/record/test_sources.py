"""Batches that a training evaluates on are told from those it trains on, in loops of all kinds."""

from __future__ import annotations

import time
from typing import Any

import pytest

import perfnb
from perfnb.record.sources import Sources
from perfnb.run import Run

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch


class Slow(torch.utils.data.Dataset):  # type: ignore[misc]
    """Rows of which each takes 4 ms."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.004)
        return torch.zeros(8)


def _loader(rows: int = 32, **options: Any) -> Any:
    return torch.utils.data.DataLoader(torch.randn(rows, 8), batch_size=4, **options)


def _spent(run: Run, step: int) -> dict[str, float]:
    rows = run.phases[run.phases["step"] == step]
    return dict(zip(rows["phase"], rows["wall_us"], strict=True))


def _samples(run: Run) -> list[float]:
    values: list[float] = run.training["batch_size"].to_list()
    return values


def test_a_loader_whose_batches_only_went_through_without_gradients_is_inference() -> None:
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held_out = torch.utils.data.DataLoader(Slow(), batch_size=2)

    with perfnb.record() as recorder:
        for number, inputs in enumerate(_loader()):
            model(inputs).sum().backward()
            optimizer.step()
            if number == 3:
                for others in held_out:  # with gradients on, as loops of Accelerate's examples are written
                    with torch.no_grad():
                        model(others)

    run = recorder.run
    assert _spent(run, 4)["inference"] > 10 * 4000
    assert _spent(run, 4)["data"] < 10 * 4000
    assert _samples(run) == [4.0] * 8
    assert run.steps["epoch"].to_list() == [0] * 8
    assert run.config["dataset_size"] == 32


def test_a_teacher_without_gradients_makes_no_evaluation_of_a_batch() -> None:
    teacher, student = torch.nn.Linear(8, 1), torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)

    with perfnb.record() as recorder:
        for inputs in torch.utils.data.DataLoader(Slow(), batch_size=2):
            with torch.no_grad():
                wanted = teacher(inputs)
            (student(inputs) - wanted).square().sum().backward()
            optimizer.step()

    assert all(_spent(recorder.run, step)["data"] > 2 * 4000 for step in range(5))
    assert _samples(recorder.run) == [2.0] * 5


def test_batches_fetched_before_they_are_used_are_data() -> None:
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = iter(_loader())

    with perfnb.record() as recorder:
        for _ in range(4):
            for inputs in [next(batches), next(batches)]:
                model(inputs).sum().backward()
            optimizer.step()

    assert _samples(recorder.run) == [8.0] * 4


def test_settings_and_workers_stay_those_of_the_training() -> None:
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    with perfnb.record() as recorder:
        for number, inputs in enumerate(_loader(num_workers=1)):
            model(inputs).sum().backward()
            optimizer.step()
            if number == 3:
                for others in _loader(8, num_workers=2):
                    with torch.no_grad():
                        model(others)
        watch = recorder.watch
        assert watch is not None
        workers = len(watch.worker_pids)

    assert workers == 1
    assert recorder.run.config["num_workers"] == 1


def test_a_batch_of_unknown_size_makes_that_of_the_step_unknown() -> None:
    sources = Sources()

    sources.load(1, 8)
    sources.load(1, None)

    assert sources.close() == (None, 0, frozenset())


def test_a_step_of_evaluation_alone_has_no_samples() -> None:
    sources = Sources()

    sources.fetch(3)
    sources.load(3, 8)
    sources.begin_pass(3)
    sources.use(trains=False)

    assert sources.close() == (None, 0, frozenset({3}))
