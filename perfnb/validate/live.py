"""Checks on trainings that run here and now: a fault that is put in and found, and a change that is predicted and measured."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Final

import perfnb
from perfnb.fix import Suggestion
from perfnb.prediction import Prediction
from perfnb.run import Run
from perfnb.validate.check import NotAsExpected, NotTested, Planned
from perfnb.verify import verify

GROUP: Final = "live on this machine"

SAMPLE_MS: Final = 4.0
STEPS: Final = {"quick": 50, "full": 150}
_PATIENCE_S: Final = 180.0
_FAULT: Final = "data"
_BUSY: Final = "cpu_contention"
_MOST_BUSY: Final = 0.2
_WRONG_BY: Final = 0.25
"""An 80 % interval misses one time in five: outside of it, a step that is predicted within a quarter is no failure."""

_NO_TORCH: Final = ("torch is not installed", "pip install 'perfnb[torch]'; without a GPU read environment.md first")


class Live:
    """Trainings of one validation, each run once, in child processes: this one stays without torch.

    Parameters
    ----------
    mode
        "quick" or "full".
    """

    def __init__(self, mode: str) -> None:
        self._steps = STEPS[mode]
        self._is_full = mode == "full"
        self._folder = Path(tempfile.mkdtemp(prefix="perfnb-validate-"))

    def close(self) -> None:
        """Remove what was recorded."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def planned(self) -> list[Planned]:
        """The checks."""
        checks = [
            Planned(GROUP, "a slow loader that is put in is found", self._found),
            Planned(GROUP, "a change is predicted, made and measured", self._pair),
        ]
        if self._is_full:
            checks.append(Planned(GROUP, "the same training without the fault is not accused of it", self._control))
        return checks

    @cached_property
    def before(self) -> Run:
        """The training with the fault."""
        return self._trained("before", 0, SAMPLE_MS)

    @cached_property
    def suggestion(self) -> Suggestion:
        """What perfnb suggests for it, with a prediction."""
        made = perfnb.suggest(self.before)
        known = [each for each in made if isinstance(each.prediction, Prediction) and _workers(each) is not None]
        if not known:
            self._expect_quiet()
            reasons = "; ".join(f"{each.fix}: {getattr(each.prediction, 'reason', 'changes another knob')}" for each in made)
            message = f"no number of workers was suggested with a prediction ({reasons or 'no suggestion'})"
            raise NotAsExpected(message, "a very busy host makes the waiting for data invisible: run again when it is quiet")
        return known[0]

    def _found(self) -> str:
        found = perfnb.diagnose(self.before).found
        first = next((each for each in found if each.unit == "time"), None)
        if first is None or first.category != _FAULT:
            self._expect_quiet()
            seen = first.summary if first else "nothing"
            advice = "a very busy host hides it: run again when it is quiet"
            message = f"samples that take {SAMPLE_MS:g} ms each were put in; found: {seen}"
            raise NotAsExpected(message, advice)
        return first.summary

    def _pair(self) -> str:
        suggestion = self.suggestion
        workers = _workers(suggestion)
        after = self._trained("after", workers or 0, SAMPLE_MS)
        outcome = verify(suggestion, self.before, after)
        if outcome.void:
            message = f"the two runs cannot be compared: {outcome.void}"
            raise NotTested(message, "run again when the host is quiet")
        error = outcome.error_share
        if not outcome.inside and (error is None or abs(error) > _WRONG_BY):
            self._expect_quiet(after)
            raise NotAsExpected(outcome.verdict, "other processes may have taken the cores meanwhile: run again when it is quiet")
        return f"num_workers 0 -> {workers}: {outcome.verdict}"

    def _expect_quiet(self, *others: Run) -> None:
        """`NotTested` where the job waited for a core so long, then or in another run, that the host is too busy to tell."""
        for each in (found for run in (self.before, *others) for found in perfnb.diagnose(run).found):
            if each.detector == _BUSY and each.severity > _MOST_BUSY:
                message = f"the host is too busy to tell: {each.summary}"
                raise NotTested(message, "run again when the host is quiet")

    def _control(self) -> str:
        found = [each for each in perfnb.diagnose(self._trained("control", 0, 0.0)).found if each.category == _FAULT]
        if found and found[0].severity > 0.5:  # noqa: PLR2004 - collating tiny samples is a part of a tiny step
            raise NotAsExpected(found[0].summary, "report this line")
        return found[0].summary if found else "no trouble with data"

    def _trained(self, name: str, workers: int, sample_ms: float) -> Run:
        if not has_torch():
            raise NotTested(*_NO_TORCH)
        folder = self._folder / name
        words = ("--workers", str(workers), "--sample-ms", str(sample_ms), "--steps", str(self._steps))
        done = subprocess.run(  # noqa: S603 - this interpreter on our own module
            [sys.executable, "-m", "perfnb.validate.job", str(folder), *words],
            capture_output=True,
            encoding="utf-8",
            timeout=_PATIENCE_S,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            message = f"the training ended with exit code {done.returncode}: {last}"
            raise NotAsExpected(message, "see whether torch itself works: python -c 'import torch'")
        return perfnb.read_run(folder)


def has_torch() -> bool:
    """Whether torch is installed; it is not imported for that."""
    return importlib.util.find_spec("torch") is not None


def _workers(suggestion: Suggestion) -> int | None:
    """Number of workers that a suggestion names, where it changes nothing else that the job does not know."""
    after = {change.knob: change.after for change in suggestion.changes}
    return int(after["num_workers"]) if set(after) == {"num_workers"} else None
