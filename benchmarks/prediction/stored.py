"""Reading stored pairs: what was predicted and found, and the run before, from which a later version can predict again."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from benchmarks.detection.storage import FAILED, SUFFIX, unpacked
from benchmarks.prediction.case import PairCase
from perfnb.run import Run

FORMAT: Final = 1
MOST_FOREIGN_CORES: Final = 0.25
"""Whatif contract, section 3. Niced work does not count, as for perfnb's probes: it gives way at once. Nor does pressure, which
counts whatever waits: niced work, and the training's own workers."""


@dataclass(frozen=True, eq=False)
class StoredPair:
    """A pair as its file tells it; see `benchmarks.prediction.case` for the fields."""

    case: PairCase
    told: Mapping[str, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """Knobs before the change."""
        found: Mapping[str, Any] = self.told["config"]
        return found

    @property
    def row(self) -> Mapping[str, Any]:
        """Row of the accuracy ledger."""
        found: Mapping[str, Any] = self.told["row"]
        return found

    @cached_property
    def run(self) -> Run:
        """The run before, with what was probed and the earlier runs: all that the prediction was made from."""
        from benchmarks.prediction.probing import Probes  # noqa: PLC0415 - imports torch, which most readers do not need

        earlier = tuple(unpacked(each) for each in self.told["earlier"].values())
        return replace(Probes(**self.told["probes"]).attach(unpacked(self.told["before"])), earlier=earlier)

    @property
    def foreign_cores(self) -> float:
        """Most cores that others used before and during any of its runs, niced work left out."""
        return max(each["foreign_cores"] - each["yielding_cores"] for each in self._around())

    @property
    def yielding_cores(self) -> float:
        """Most cores that niced work used."""
        return max(float(each["yielding_cores"]) for each in self._around())

    @property
    def is_quiet(self) -> bool:
        """Whether no work that competes ran beside it, before it and during all of its runs."""
        return self.foreign_cores <= MOST_FOREIGN_CORES

    def _around(self) -> Sequence[Mapping[str, float]]:
        return (*self.told["blocks"], self.told["around"], self.told["idle"])


def read(path: Path) -> StoredPair:
    """A pair from its file.

    Raises
    ------
    ValueError
        If another version of this program wrote it.
    """
    told: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))
    if told["format"] != FORMAT:
        message = f"{path.name} is written in format {told['format']}, this program reads {FORMAT}: run the pair again"
        raise ValueError(message)
    return StoredPair(PairCase.from_json(told["case"]), told)


def pairs(folder: Path) -> Iterator[StoredPair]:
    """All pairs below a folder, in the order of their names."""
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        yield read(path)


def failures(folder: Path) -> Sequence[tuple[str, str]]:
    """Name of each pair that could not run, and why."""
    found = []
    for path in sorted(folder.rglob(f"*{FAILED}")):
        told = json.loads(path.read_text(encoding="utf-8"))
        found.append((PairCase.from_json(told["case"]).id, str(told["reason"]).split("\n", 1)[0]))
    return found
