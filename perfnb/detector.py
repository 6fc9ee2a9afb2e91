"""The @detector contract: what a detector reads, what it claims, when it fires, and the examples that prove it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

import pandas as pd

from perfnb.errors import PerfnbError
from perfnb.ledger import step_ledger
from perfnb.run import Machine, Run
from perfnb.tables import SCHEMAS, table_from_text
from perfnb.work import rank_work

Family = Literal["data", "device idle", "device compute", "communication", "imbalance", "host", "memory", "over time", "training"]
FLAG_ABOVE: Final = 0.05
"""Default share of step time from which a loss is a finding: torch_tb_profiler 0.4.3 reports waits above 5 % of a step."""

_OTHERS: Final = ("ledger", "work", "config", "machine", "world_size", "earlier")

_ABSENT: Final = {  # of a signal that no reader gave a reason for
    "host_samples": "the host was not sampled: perfnb.record does it",
    "gpu_samples": "no GPU was sampled: perfnb.record does it",
    "allocator": "the state of torch's allocator was not recorded: perfnb.record of a training on a GPU does it",
    "training": "nothing was told of the training itself: recorder.log(loss=...), or a training log",
    "schedstat": "how long threads waited for a core was not recorded: perfnb.record does it on Linux",
    "gc": "garbage collections of Python were not recorded: perfnb.record does it",
}

Unit = Literal["time", "memory", "opportunity", "training"]
"""What a detector's loss is counted in: time of a step; bytes of a memory; nothing lost, but something unused; of the training
itself nothing that could be counted without a probe."""


class Unmeasured(PerfnbError):  # noqa: N818 - it is an answer, not a failure
    """Raised by a detector that cannot look at this run; the message says what is missing."""


class ConfigHint(PerfnbError):  # noqa: N818 - as above
    """Raised by a detector that sees trouble in the config alone; the message says which, and what would prove it."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectorExample:
    """A small run and the share of step time, or of memory, that a detector must find lost in it.

    `fires` stands in its place for detectors of unit "training": whether it must fire, None where it cannot look.
    """

    title: str
    make_run: Callable[[], Run]
    lost_share: float
    tolerance: float = 1e-9
    fires: bool | None = None

    @property
    def run(self) -> Run:
        """The run, made when it is first asked for: a diagnosis asks for none."""
        return self.make_run()


def example(
    title: str,
    *,
    lost_share: float,
    config: Mapping[str, Any] | None = None,
    signals: tuple[str, ...] = (),
    world_size: int | None = None,
    machine: Machine | None = None,
    earlier: tuple[Run, ...] = (),
    **tables: str,
) -> DetectorExample:
    r"""Example whose tables are written as text, see `perfnb.tables.table_from_text`.

    Examples
    --------
    >>> example("nothing", lost_share=0, steps="rank step start_us duration_us\n0 1 0 100").run.steps.shape
    (1, 9)
    """

    @cache
    def make_run() -> Run:
        frames: dict[str, Any] = {name: table_from_text(name, text) for name, text in tables.items()}
        return Run(
            config=config or {},
            signals=frozenset({*frames, *signals}),
            world_size=world_size,
            machine=machine or Machine(),
            earlier=earlier,
            **frames,
        )

    return DetectorExample(title, make_run, lost_share)


DetectorFunction = Callable[..., pd.DataFrame]


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A detector under the contract; see `detector`."""

    name: str
    family: Family
    claims: tuple[str, ...]
    needs: tuple[str, ...]
    flag_above: float
    flag_above_on_host: float | None
    title: str
    source: str
    injected_by: str
    not_to_confuse_with: tuple[str, ...]
    recorded_only_when: str
    examples: tuple[DetectorExample, ...]
    function: DetectorFunction
    doc: str
    reads: tuple[str, ...] = field(default=())
    optional: frozenset[str] = frozenset()
    unit: Unit = "time"
    after: tuple[str, ...] = ()
    is_base: bool = False
    tier: int | None = None
    upper_bound: bool = False

    def threshold(self, run: Run) -> float:
        """Share of step time from which a loss is a finding on this run's clock."""
        return self.flag_above if run.is_device_job or self.flag_above_on_host is None else self.flag_above_on_host

    def evidence(self, run: Run, ledger: pd.DataFrame | None = None, work: pd.DataFrame | None = None) -> pd.DataFrame:
        """Evidence of the bottleneck in a run; empty where nothing is lost.

        Parameters
        ----------
        run
            The run.
        ledger, work
            Its `step_ledger` and the `rank_work` of it, of the steps that numbers rest on; made of all steps where not given.

        Returns
        -------
        pandas.DataFrame
            Rows with rank and either start_us and duration_us, or step and lost_us; of memory device, bytes and capacity_bytes;
            of training step, statistic, threshold, fires and symptom; further columns explain.

        Raises
        ------
        Unmeasured
            If the run lacks what this detector reads.
        ConfigHint
            If only the config tells of it.
        """
        for name in (*self.needs, *(table for table in self.reads if table in SCHEMAS and table not in self.optional)):
            if name not in run.signals:
                raise Unmeasured(run.missing.get(name, _ABSENT.get(name, f"the run has no {name}")))
        given: dict[str, object] = {
            "config": run.config,
            "machine": run.machine,
            "world_size": run.world_size,
            "earlier": run.earlier,
        }
        for name in self.reads:
            if name in SCHEMAS:
                given[name] = getattr(run, name) if name in run.signals else None
        if "ledger" in self.reads or "work" in self.reads:
            given["ledger"] = step_ledger(run) if ledger is None else ledger
            given["work"] = rank_work(given["ledger"]) if work is None else work  # type: ignore[arg-type]
        return self.function(**{name: given[name] for name in self.reads})


def detector(
    *,
    family: Family,
    title: str,
    source: str,
    injected_by: str,
    examples: tuple[DetectorExample, ...],
    not_to_confuse_with: tuple[str, ...],
    claims: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    flag_above: float = FLAG_ABOVE,
    flag_above_on_host: float | None = None,
    recorded_only_when: str = "",
    unit: Unit = "time",
    after: tuple[str, ...] = (),
    is_base: bool = False,
    tier: int | None = None,
    upper_bound: bool = False,
) -> Callable[[DetectorFunction], Detector]:
    """Make a function a detector.

    The names of its parameters are what it reads: tables of a run, or `ledger`, `work` (see `perfnb.work.rank_work`), `config`,
    `machine`, `world_size`, `earlier` (runs to compare with); it gets nothing else. A table whose parameter has the default
    None is given as None where the run lacks it; without any other the detector cannot look. It returns evidence; clipping to
    steps, severity, interval and floor are made by `perfnb.claims` and `perfnb.severity`, of memory by `perfnb.memory_loss`.

    Parameters
    ----------
    family
        Kind of trouble, as findings show it.
    title
        Words before "takes 58 % of each step".
    source
        Where the threshold comes from.
    injected_by
        Fault of the detection benchmark that causes this trouble.
    examples
        On each side of the threshold; two ranks and two steps; an event over a step's edge.
    not_to_confuse_with
        Detectors whose examples must leave this one silent.
    claims
        Ledger parts of which this detector explains at most what is left; "imbalance" is what the rank with the most work
        has over the mean.
    needs
        Signals that must have been recorded, besides the tables read.
    flag_above, flag_above_on_host
        Share of step time from which a loss is a finding; on the host clock another one may hold.
    recorded_only_when
        Why no recorded run shows it yet; empty where one does.
    unit
        What its loss is counted in; an opportunity loses nothing and is ranked apart, and so is the training itself.
    after
        Detectors that claim their time before this one: causes before what they are a case of.
    is_base
        Whether it is the heading of its family: it comes last and finds only what the causes leave.
    tier
        Tier of its signal where it is not that of the run's clock: 3 for samples.
    upper_bound
        Whether less than what it finds may be lost.

    Raises
    ------
    TypeError
        If a parameter names nothing that exists.
    """

    def made(function: DetectorFunction) -> Detector:
        parameters = inspect.signature(function).parameters
        reads = tuple(parameters)
        unknown = [name for name in reads if name not in SCHEMAS and name not in _OTHERS]
        if unknown:
            message = f"detector {function.__name__} reads {', '.join(unknown)}: there are {', '.join((*SCHEMAS, *_OTHERS))}"
            raise TypeError(message)
        return Detector(
            name=function.__name__,
            family=family,
            claims=claims,
            needs=needs,
            flag_above=flag_above,
            flag_above_on_host=flag_above_on_host,
            title=title,
            source=source,
            injected_by=injected_by,
            not_to_confuse_with=not_to_confuse_with,
            recorded_only_when=recorded_only_when,
            examples=examples,
            function=function,
            doc=inspect.getdoc(function) or "",
            reads=reads,
            optional=frozenset(name for name, each in parameters.items() if each.default is None),
            unit=unit,
            after=after,
            is_base=is_base,
            tier=tier,
            upper_bound=upper_bound,
        )

    return made
