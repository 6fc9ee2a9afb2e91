"""What the detection benchmark is made of: workloads, faults, controls, cases, their measured truth and the rows of the score.

Stored format (`benchmarks.detection.storage`). One file per case, ``<case id>.json.xz``: a JSON object with

========== ===========================================================================================================
format     1
case       fields of `Case`; ``faults`` is a list of fault ids, empty for a control
truths     list of fields of `Truth`, one per fault of the case, empty for a control
certified  of a control: {"data_share": x, "standard_error": x, "loss_first": x, "loss_last": x, "is_certified": bool}; else null
seen       what else was measured without our detectors: {"own_us", "wall_us", "runqueue_share"} of the blocks without the cause
provenance program, command, recorded_at, commit, versions, machine, seconds
ranks      list of recordings, one per rank: {"header", "state", "reason", "tables", "files"}; the rows that `perfnb.record`
           wrote, column by column (see `storage`), in whole nanoseconds; files: texts of a profiler's window, if any
earlier    list of such lists: earlier runs of the same training, healthy ones
notes      sentences on how it was measured
========== ===========================================================================================================

A case that could not run is stored as ``<case id>.failed.json``: {"case": ..., "reason": ...}.

Kinds of cases. A module that adds faults of its own (`single`, `controls`, `ranks`) offers ``FAULTS: tuple[Fault, ...]``,
``cases(split: Split) -> Iterator[Case]`` and ``measure(case: Case, folder: Path) -> Measured``: it records the run that a user
would have into ``folder / "run"`` (rank<r>/ in it, as `perfnb.record` does; earlier runs into ``folder / "earlier" / "0"``, ...),
measures the truth in interleaved blocks, and returns what it measured. `run` calls it in a process of its own, with ``folder``
as the working directory, packs the folder and writes the file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

POSITIVE_FROM: Final = 0.08
NEGATIVE_BELOW: Final = 0.03
"""True shares from which a case must be found, and below which it must not; between them it is printed, not scored."""

ON: Final = "on"
"""The dose of faults that have no size to choose."""

WITH_WORKERS: Final = "two loader workers"

Split = Literal["development", "held_out"]
Clock = Literal["own", "wall", "memory"]
"""What a truth is a share of: own, the contention-free step A = cpu + max(0, T - cpu - runqueue); wall, T; memory, its bytes."""

Dose = float | Literal["on"]


@dataclass(frozen=True, slots=True)
class Workload:
    """A training to inject faults into.

    Attributes
    ----------
    name
        As cases and files say it.
    split
        Whether thresholds may be tuned on it, or it is scored only.
    settings
        Name to batch and loader settings: batch_size, num_workers, and what the workload reads besides.
    build
        Called with the settings and a seed: what `benchmarks.detection.training` trains. None for ranks, which build theirs.
    world_size
        Processes that it trains in.
    """

    name: str
    split: Split
    settings: Mapping[str, Mapping[str, Any]]
    build: Callable[[Mapping[str, Any], int], Any] | None = None
    world_size: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """One known cause of lost time or memory.

    Attributes
    ----------
    id
        As in the catalogue of detectors (`injected_by`).
    family
        Family of the detector that should find it.
    expects
        Detectors that count as the right cause, the one it is made for first.
    accepted
        Detectors whose finding is true besides, neither right nor wrong: the heading of a cause, a second view.
    accepted_with_workers
        Further ones in jobs whose loader has workers.
    doses
        Shares of the step that it is calibrated to, by split; (ON,) where it has no size to choose.
    clock
        What its truth is a share of.
    workloads
        Names of workloads that it applies to; empty for all.
    settings
        Names of batch and loader settings that it applies to; empty for all.
    inject
        Made by the module that runs it; see there.
    seen_in_tables
        Whether the tables that are given to detectors can show it at all; where not, NotMeasured is the right answer.
    about
        The recipe in a sentence.
    """

    id: str
    family: str
    expects: tuple[str, ...]
    inject: Callable[..., Any]
    about: str
    accepted: tuple[str, ...] = ()
    accepted_with_workers: tuple[str, ...] = ()
    doses: Mapping[Split, tuple[Dose, ...]] = field(default_factory=lambda: BOTH)
    clock: Clock = "own"
    workloads: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    seen_in_tables: bool = True


BOTH: Final[Mapping[Split, tuple[Dose, ...]]] = {"development": (0.1, 0.4), "held_out": (0.1, 0.4)}
ONCE: Final[Mapping[Split, tuple[Dose, ...]]] = {"development": (ON,), "held_out": (ON,)}


@dataclass(frozen=True, slots=True)
class Control:
    """A healthy training, whatever runs beside it.

    Attributes
    ----------
    id, about
        Its name, and the recipe in a sentence.
    host
        Condition of the machine, see `Case.host`.
    arrange
        Made by the module that runs it.
    accepted
        Detectors whose finding is true: cpu_contention under an injected load of the processor.
    """

    id: str
    about: str
    arrange: Callable[..., Any]
    host: str = "quiet"
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the benchmark: workload x setting x fault(s) x dose x seed x host condition.

    Attributes
    ----------
    kind
        Module that measures it: "single", "controls" or "ranks".
    workload, setting
        Names of both.
    faults
        Ids of the injected faults; the control's id stands in `control` instead.
    dose
        Share of the step that it is calibrated to (of each fault, where there are two), or "on".
    seed
        Of samples, weights and whatever is random in the fault.
    host
        "quiet", or the load put beside it: "busy", "fsync", "memory", "training", "all".
    control
        Id of the control; empty for a fault.
    """

    kind: str
    workload: str
    setting: str
    split: Split
    faults: tuple[str, ...] = ()
    dose: Dose = ON
    seed: int = 0
    host: str = "quiet"
    control: str = ""

    @property
    def job(self) -> str:
        """What kind of job it is."""
        if self.kind == "ranks":
            return "two ranks"
        return WITH_WORKERS if self.setting == "workers" or self.control == "idle_workers" else "no loader workers"

    @property
    def id(self) -> str:
        """Name of its file: what distinguishes it from all others.

        Examples
        --------
        >>> Case("single", "mlp", "small", "development", ("slow_item",), 0.4).id
        'mlp-small-slow_item-40-quiet-0'
        """
        what = "+".join(self.faults) or self.control
        dose = f"{self.dose:.0%}".removesuffix("%") if isinstance(self.dose, float) else self.dose
        return "-".join((self.workload, self.setting, what, dose, self.host, str(self.seed)))

    def as_json(self) -> dict[str, Any]:
        """Its fields, as JSON holds them."""
        return asdict(self) | {"faults": list(self.faults)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Case:
        """The case that `as_json` told."""
        return cls(**{**told, "faults": tuple(told["faults"])})


@dataclass(frozen=True, slots=True)
class Truth:
    """Share that one cause takes, measured against the same training with the cause removed altogether.

    Attributes
    ----------
    fault
        Its id.
    clock
        What `share` is a share of.
    share
        1 - without/with over all blocks; of memory, bytes lost over capacity.
    with_us, without_us
        Mean step of both sides, on that clock; NaN for memory.
    by_block
        Share that each pair of neighbouring blocks gives.
    """

    fault: str
    clock: Clock
    share: float
    with_us: float
    without_us: float
    by_block: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """Standard error of the share, from its blocks; 0 where there are too few to tell."""
        return statistics.stdev(self.by_block) / math.sqrt(len(self.by_block)) if len(self.by_block) > 1 else 0.0

    @property
    def label(self) -> Literal["positive", "negative", "between"]:
        """Whether the cause must be found; "between" also where twice the standard error leaves room for the other label.

        Examples
        --------
        >>> [Truth("slow_item", "own", share, 1.0, 1.0).label for share in (0.08, 0.03, 0.029)]
        ['positive', 'between', 'negative']
        >>> Truth("slow_item", "own", 0.1, 1.0, 1.0, by_block=(-0.1, 0.1, 0.3)).label
        'between'
        """
        if self.share >= POSITIVE_FROM and self.share - 2 * self.error > NEGATIVE_BELOW:
            return "positive"
        return "negative" if self.share < NEGATIVE_BELOW and self.share + 2 * self.error < POSITIVE_FROM else "between"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a module measured of a case, besides the recorded run."""

    truths: tuple[Truth, ...]
    seen: Mapping[str, float] = field(default_factory=dict)
    certified: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """What the detectors said of one case, beside its truth: all that the score is made of.

    Attributes
    ----------
    case, truths, certified
        As stored.
    found
        Findings, first named first: (detector, severity, low, high, lost_us, confidence, tier, unit).
    unmeasured
        Detector to the reason.
    possible
        Detectors that say "possible".
    seen
        As stored.
    """

    case: Case
    truths: tuple[Truth, ...]
    found: tuple[Found, ...]
    unmeasured: Mapping[str, str]
    possible: tuple[str, ...] = ()
    certified: Mapping[str, Any] | None = None
    seen: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """One finding, as the score reads it."""

    detector: str
    severity: float
    low: float
    high: float
    lost_us: float
    confidence: float
    tier: int
    unit: str = "time"


class NotPermittedError(RuntimeError):
    """The fault cannot be made on this machine (control groups, rate limits); the message says why."""
