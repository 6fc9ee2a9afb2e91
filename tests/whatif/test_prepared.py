"""What is worked out once per model is made anew for another model, another rank and other estimates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import perfnb
from perfnb.whatif.model import StepModel
from perfnb.whatif.prepared import prepared, unchanged
from perfnb.whatif.rank_model import RankModel
from perfnb.whatif.step_model import edited


@pytest.fixture
def model(repository: Path) -> StepModel:
    folder = repository / "data" / "samples" / "slow_loader"
    run = perfnb.read_trace(folder)
    found = edited(run, [perfnb.Change("num_workers", 0, 2)], json.loads((folder / "config.json").read_text()))
    assert isinstance(found, StepModel)
    return found


def test_it_is_made_once_per_name_and_estimates(model: StepModel) -> None:
    rank: RankModel = model.measured.ranks[0]
    made: list[str] = []

    def make(name: str) -> list[int]:
        made.append(name)
        return [len(made)]

    asked = [("work", {"a": 1.0}), ("work", {"a": 1.0}), ("work", {"a": 2.0}), ("work", {}), ("batches", {"a": 1.0})]
    found = [prepared(model, what, rank, values, lambda what=what: make(what)) for what, values in asked]  # type: ignore[misc]

    assert found == [[1], [1], [2], [3], [4]]
    assert made == ["work", "work", "work", "batches"]


def test_an_edit_makes_a_model_of_its_own_and_the_unchanged_one_stays_the_same(model: StepModel) -> None:
    rank = model.measured.ranks[0]
    before = unchanged(model)

    here, there = (prepared(each, "work", rank, {}, lambda: [object()]) for each in (model, before))

    assert here[0] is not there[0]
    assert unchanged(model) is before
    assert before.workers == model.recorded_workers
