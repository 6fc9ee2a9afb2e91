"""Simulations side by side give what each gives by itself; what cannot stand beside others is simulated alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.whatif import loader_together
from perfnb.whatif.cold_work import Cooling
from perfnb.whatif.loader_terms import NEXT
from perfnb.whatif.loader_together import FEWEST_TOGETHER, Loading, Simulation, Work, answered, spacings_us
from perfnb.whatif.shared_cores import Actor

Floats = loader_together.Floats


def times(random: np.random.Generator, count: int) -> Floats:
    """Waiting and computing of so many batches or steps: some of no length, some long."""
    scale = random.choice([1.0, 30.0, 200.0], (count, 2))
    return random.uniform(0, 1, (count, 2)) * scale * random.choice([0.0, 1.0], (count, 2), p=[0.2, 0.8])


def any_loadings(random: np.random.Generator, least_us: float | None = None, **options: Any) -> list[Loading]:
    """Simulations of one shape whose times, costs and coolings differ; no batch takes less than the least time."""
    batches, steps = int(random.integers(1, 90)), int(random.integers(1, 30))
    least = float(random.choice([0.0, 1.0])) if least_us is None else least_us
    has_cooling, has_pin = random.random() < 0.5, options["workers"] > 0 and random.random() < 0.4
    costs = random.random() < 0.6

    def one() -> Loading:
        cooling = Cooling(float(random.uniform(1, 2)), float(random.uniform(5, 90))) if has_cooling else None
        taking, share = float(random.uniform(0, 5)), float(random.uniform(0, 1))
        work = Work(times(random, steps), cooling, random.uniform(0, 50, steps) if has_cooling else None, taking, share)
        pin = float(random.uniform(0, 9)) if has_pin else None
        return Loading(least + times(random, batches), work, get_us=float(costs * random.uniform(0, 9)), pin_us=pin, **options)

    return [one() for _ in range(FEWEST_TOGETHER + int(random.integers(0, 5)))]


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(1, 3))
def test_side_by_side_they_are_what_they_are_alone(seed: int, workers: int, prefetch: int) -> None:
    loadings = any_loadings(np.random.default_rng(seed), workers=workers, prefetch=prefetch)

    together, alone = spacings_us(loadings), [each.alone_us() for each in loadings]

    for side, own in zip(together, alone, strict=True):
        np.testing.assert_allclose(side, own, rtol=1e-9, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1))
def test_batches_that_arrive_together_are_taken_in_the_same_order(seed: int, workers: int, prefetch: int, least: int) -> None:
    random = np.random.default_rng(seed)

    def whole(count: int) -> Floats:
        return random.integers(least, 4, (count, 2)).astype(float)

    options = {"workers": workers, "prefetch": prefetch, "pin_us": random.choice([None, 1.0]), "get_us": 1.0}
    loadings = [Loading(whole(5), Work(whole(3)), **options) for _ in range(FEWEST_TOGETHER)]

    for side, own in zip(spacings_us(loadings), [each.alone_us() for each in loadings], strict=True):
        assert side.tolist() == own.tolist()


def test_they_do_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    loadings = any_loadings(np.random.default_rng(1), 1.0, workers=2)
    wanted = [each.alone_us() for each in loadings]
    monkeypatch.setattr(Loading, "alone_us", lambda _: pytest.fail("simulated alone"))

    found = spacings_us(loadings)

    np.testing.assert_allclose(found, wanted)


def loop() -> Actor:
    while True:
        yield "cpu", 5.0
        yield NEXT


@pytest.mark.parametrize(
    "options", [{"cores": 1.0}, {"in_order": False}, {"foreign": 3.0, "cores": 4.0}, {"threads": 3.0, "cores": 4.0}]
)
def test_with_too_few_cores_or_out_of_order_each_is_simulated_by_its_events(options: dict[str, Any]) -> None:
    batches, work = np.array([[10.0, 20.0], [5.0, 2.0]]), Work(np.array([[3.0, 4.0]]))
    crowded = [Loading(batches, work, workers=2, **options)] * 2

    found = spacings_us([*crowded, Loading(batches, work, workers=2), Loading(batches, loop, workers=2)])

    assert not crowded[0].is_uncrowded
    assert found[0].tolist() == crowded[0].alone_us().tolist()
    assert found[3].tolist() == Loading(batches, loop, workers=2).alone_us().tolist()


def test_answers_come_in_the_order_of_their_simulations_however_often_they_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    spacings: Callable[..., list[Floats]] = loader_together.spacings_us

    def counted(loadings: list[Loading]) -> list[Floats]:
        asked.append(len(loadings))
        return spacings(loadings)

    monkeypatch.setattr(loader_together, "spacings_us", counted)

    def simulation(times: int) -> Simulation[float]:
        total = 0.0
        for number in range(times):
            found = yield Loading(np.array([[1.0 + number, 0.0]]), Work(np.array([[2.0, 0.0]])), workers=0)
            total += found[0]
        return total

    assert answered([simulation(2), simulation(0), simulation(3), simulation(1)]) == [3.0 + 4.0, 0.0, 3.0 + 4.0 + 5.0, 3.0]
    assert [count for count in asked if count] == [3, 2, 1]


def test_a_cooling_without_what_was_recorded_is_none() -> None:
    work = Work(np.array([[1.0, 5.0]]), Cooling(2.0, 10.0))

    found = spacings_us([Loading(np.array([[20.0, 0.0]]), work, workers=0)])

    assert set(found[0].tolist()) == {26.0}


def test_nothing_to_simulate_is_no_answer() -> None:
    assert answered([]) == []
    assert spacings_us([]) == []
