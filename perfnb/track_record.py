"""How often each detector was right on runs with a known truth: counts shipped as data, from benchmarks/detection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

FILE: Final = "track_record.json"
"""Beside this module: detector to tier to [right, wrong], and where the counts come from."""

HIGHEST_CONFIDENCE: Final = {1: 0.9, 2: 0.8, 3: 0.5}  # priors: device clock, host clock, samples

Counts = Mapping[str, Mapping[str, Sequence[int]]]
"""Detector to tier to right and wrong findings."""

_other: ContextVar[Counts | None] = ContextVar("_other", default=None)


class Record(NamedTuple):
    """Findings of one detector at one tier on runs that it was not made from."""

    right: int
    wrong: int

    @property
    def probability(self) -> float:
        """That a finding is right: the mean of a Beta distribution with one of each added.

        Examples
        --------
        >>> Record(0, 0).probability, Record(34, 2).probability
        (0.5, 0.9210526315789473)
        """
        return (1 + self.right) / (2 + self.right + self.wrong)

    @property
    def words(self) -> str:
        """The counts in words."""
        return f"{self.right} right, {self.wrong} wrong on the benchmark" if self.right or self.wrong else "no record yet"


def record_of(detector: str, tier: int) -> Record:
    """Counts of a detector at a tier; none where the benchmark has not scored it.

    Examples
    --------
    >>> record_of("no such detector", 1)
    Record(right=0, wrong=0)
    """
    counts = _other.get()
    right, wrong = (_counts() if counts is None else counts).get(detector, {}).get(str(tier), (0, 0))
    return Record(int(right), int(wrong))


def confidence(probability: float, detector: str, tier: int) -> float:
    """Confidence of a finding whose loss is above the threshold with that probability."""
    return min(probability * record_of(detector, tier).probability, HIGHEST_CONFIDENCE[min(tier, 3)])


@contextmanager
def counting(counts: Counts) -> Iterator[None]:
    """Use other counts meanwhile: a benchmark must not judge a confidence by the very runs that it rests on.

    Examples
    --------
    >>> with counting({"data_stall": {"2": [8, 0]}}):
    ...     record_of("data_stall", 2)
    Record(right=8, wrong=0)
    """
    token = _other.set(counts)
    try:
        yield
    finally:
        _other.reset(token)


@cache
def _counts() -> dict[str, dict[str, tuple[int, int]]]:
    told: dict[str, dict[str, tuple[int, int]]] = json.loads(files("perfnb").joinpath(FILE).read_text(encoding="utf-8"))["counts"]
    return told
