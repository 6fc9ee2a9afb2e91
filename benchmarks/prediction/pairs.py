"""Every recorded pair of runs: what the run before predicts of the change, beside the run after. Misses are in the table too."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from perfnb.prediction import Prediction, Unknown
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.verify import step_durations
from perfnb.whatif.step_model import StepModel, predict
from perfnb.whatif.step_simulation import simulated_step_us

REPOSITORY: Final = Path(__file__).resolve().parents[2]
CORPUS: Final = Path(os.environ.get("PERFNB_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
SAMPLES: Final = REPOSITORY / "data" / "samples"
_RESNET_CONFIG: Final = {"num_workers": 0}
_RESNET_CHANGE: Final = {"num_workers": 4}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two recorded runs of one job, and what was changed between them.

    Attributes
    ----------
    name
        Of the pair.
    before, after
        Files of each run.
    config, changes
        The config of the run before, and knob to value after.
    caution
        Why the pair proves little; empty where nothing is known against it.
    """

    name: str
    before: tuple[Path, ...]
    after: tuple[Path, ...]
    config: Mapping[str, Any]
    changes: Mapping[str, Any]
    caution: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """One row of the table; times are milliseconds per step.

    Attributes
    ----------
    pair
        What was predicted.
    answer
        The prediction, from the run before alone.
    actual_us
        Mean steady step of the run after.
    self_error
        Simulated over measured step of the unchanged run, less one: the worst of its steps where a trace is replayed.
    """

    pair: Pair
    answer: Prediction | Unknown
    actual_us: float
    self_error: float

    @property
    def error(self) -> float:
        """Predicted over actual step, less one."""
        return self.answer.after / self.actual_us - 1.0 if isinstance(self.answer, Prediction) else float("nan")

    @property
    def is_inside(self) -> bool:
        """Whether the actual step lies in the predicted interval."""
        return isinstance(self.answer, Prediction) and self.answer.low <= self.actual_us <= self.answer.high


def corpus_pairs(corpus: Path = CORPUS) -> Iterator[Pair]:
    """The ResNet-50 pairs of pytorch/kineto: one V100, num_workers 0 -> 4."""
    for folder in sorted((corpus / "traces" / "kineto").glob("resnet50_pair_*")):
        yield Pair(
            folder.name,
            tuple(sorted((folder / "before_num_workers_0").iterdir())),
            tuple(sorted((folder / "after_num_workers_4").iterdir())),
            _RESNET_CONFIG,
            _RESNET_CHANGE,
        )


def sample_pairs(samples: Path = SAMPLES) -> Iterator[Pair]:
    """The runs recorded for this project that have a run after their cure."""
    for after in sorted(samples.glob("*/after")):
        config, cured = (json.loads((folder / "config.json").read_text()) for folder in (after.parent, after))
        provenance = json.loads((after / "provenance.json").read_text())
        yield Pair(
            after.parent.name,
            tuple(sorted(after.parent.glob("*.json.gz"))),
            tuple(sorted(after.glob("*.json.gz"))),
            config,
            {knob: value for knob, value in cured.items() if value != config[knob]},
            "recorded while other work ran" if provenance["noise_accepted"] else "",
        )


def score(pair: Pair) -> Score:
    """Predict from the run before alone, then look at the run after."""
    before = read_kineto(*pair.before)
    answer = predict(before, pair.changes, pair.config, draws=200)
    actual = float(step_durations(read_kineto(*pair.after)).mean())
    return Score(pair, answer, actual, self_error(before, pair.config))


def self_error(run: Run, config: Mapping[str, Any]) -> float:
    """Simulated over measured step of the unchanged run, less one."""
    model = StepModel.from_run(run, config)
    if isinstance(model, Unknown):
        return float("nan")
    unchanged = replace(model.unchanged, is_replayed=model.measured.is_device_job)
    return simulated_step_us(unchanged, range(len(model.measured.step_us)), {}) / model.before_us - 1.0


def table(scores: Sequence[Score]) -> str:
    """The scores as text: a row per pair, then a line that sums them up."""
    head = f"{'pair':17} {'change':52} {'before':>7} {'pred.':>7} {'low':>7} {'high':>7} {'actual':>7} {'error':>7} inside  self"
    lines = [head, "-" * len(head)]
    for each in scores:
        changed = ", ".join(f"{knob} {each.pair.config[knob]} -> {value}" for knob, value in each.pair.changes.items())
        row = f"{each.pair.name:17} {changed[:52]:52} "
        if isinstance(each.answer, Prediction):
            times = (each.answer.before, each.answer.after, each.answer.low, each.answer.high, each.actual_us)
            row += " ".join(f"{time / 1e3:7.1f}" for time in times)
            row += f" {each.error:+7.1%} {'yes' if each.is_inside else 'NO':6} {each.self_error:+.2%}"
        else:
            row += f"unknown: {each.answer.reason}"
        lines.append(row + (f"  ({each.pair.caution})" if each.pair.caution else ""))
    errors = np.array([abs(each.error) for each in scores if isinstance(each.answer, Prediction)])
    inside = sum(each.is_inside for each in scores)
    if len(errors):
        lines.append(
            f"{len(scores)} pairs, {len(errors)} predicted, {inside} inside; "
            f"absolute error: median {np.median(errors):.1%}, largest {errors.max():.1%}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of all pairs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction.pairs", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of the corpus of traces")
    parser.add_argument("--samples", type=Path, default=SAMPLES, help="folder of the recorded samples")
    chosen = parser.parse_args(arguments)
    pairs = [*corpus_pairs(chosen.corpus), *sample_pairs(chosen.samples)]
    if not any("resnet" in pair.name for pair in pairs):
        print(f"no corpus at {chosen.corpus}: name its folder in PERFNB_CORPUS or --corpus")
    print("times in ms per step; predicted from the run before alone, intervals are priors of 80 %")
    print(table([score(pair) for pair in pairs]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
