"""Real pairs of runs: what the run before predicts is within a tenth of the run after, and intervals hold what they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.prediction.pairs import Pair, Score, corpus_pairs, sample_pairs, score, table
from perfnb.prediction import Change, Unknown

LARGEST_ERROR = 0.10
LARGEST_SELF_ERROR = 0.005
RESNET = ("resnet50_pair_A", "resnet50_pair_C")
SAMPLES = ("cpu_transform", "python_logging", "slow_loader", "slow_rank")


def is_near(scored: Score) -> None:
    assert abs(scored.self_error) < LARGEST_SELF_ERROR
    assert abs(scored.error) < LARGEST_ERROR


@pytest.mark.corpus
@pytest.mark.parametrize("name", RESNET)
def test_workers_for_a_resnet_on_a_gpu(name: str, corpus: Path) -> None:
    scored = score({pair.name: pair for pair in corpus_pairs(corpus)}[name])

    is_near(scored)
    assert scored.is_inside


@pytest.mark.parametrize("name", SAMPLES)
def test_the_cure_of_a_recorded_sample(name: str, repository: Path) -> None:
    pair = {pair.name: pair for pair in sample_pairs(repository / "data" / "samples")}[name]
    assert not pair.caution

    is_near(score(pair))


def test_intervals_of_eighty_percent_hold_all_but_at_most_one_recorded_sample(repository: Path) -> None:
    scores = [score(pair) for pair in sample_pairs(repository / "data" / "samples") if not pair.caution]

    assert len(scores) == len(SAMPLES)
    assert sum(scored.is_inside for scored in scores) >= len(scores) - 1


def test_the_table_holds_misses_and_refusals_too() -> None:
    pair = Pair("a pair", (), (), {"num_workers": 0}, {"num_workers": 4}, "recorded while other work ran")
    refused = Score(pair, Unknown("no steps", "steps"), 100.0, float("nan"))

    text = table([refused])

    assert str(Change("num_workers", 0, 4)).replace(":", "") in text
    assert "unknown: no steps" in text
    assert "recorded while other work ran" in text
