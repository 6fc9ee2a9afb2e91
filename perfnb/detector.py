"""The @detector contract: what a detector reads, what it claims, when it fires, and the examples that prove it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import pandas as pd

from perfnb.errors import PerfnbError
from perfnb.ledger import step_ledger
from perfnb.run import Run
from perfnb.tables import SCHEMAS, table_from_text

Family = Literal["data", "device idle", "device compute", "communication", "imbalance", "host", "memory", "over time", "training"]
FLAG_ABOVE: Final = 0.05
"""Default share of step time from which a loss is a finding: torch_tb_profiler 0.4.3 reports waits above 5 % of a step."""

_OTHERS: Final = ("ledger", "config", "machine", "world_size")


class Unmeasured(PerfnbError):  # noqa: N818 - it is an answer, not a failure
    """Raised by a detector that cannot look at this run; the message says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectorExample:
    """A small run and the share of step time that a detector must find lost in it."""

    title: str
    run: Run
    lost_share: float
    tolerance: float = 1e-9


def example(
    title: str,
    *,
    lost_share: float,
    config: Mapping[str, Any] | None = None,
    signals: tuple[str, ...] = (),
    world_size: int | None = None,
    **tables: str,
) -> DetectorExample:
    r"""Example whose tables are written as text, see `perfnb.tables.table_from_text`.

    Examples
    --------
    >>> example("nothing", lost_share=0, steps="rank step start_us duration_us\n0 1 0 100").run.steps.shape
    (1, 9)
    """
    frames = {name: table_from_text(name, text) for name, text in tables.items()}
    run = dataclasses.replace(
        Run(config=config or {}, signals=frozenset({*frames, *signals}), world_size=world_size), **cast("dict[str, Any]", frames)
    )
    return DetectorExample(title, run, lost_share)


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

    def threshold(self, run: Run) -> float:
        """Share of step time from which a loss is a finding on this run's clock."""
        return self.flag_above if run.is_device_job or self.flag_above_on_host is None else self.flag_above_on_host

    def evidence(self, run: Run, ledger: pd.DataFrame | None = None) -> pd.DataFrame:
        """Evidence of the bottleneck in a run; empty where nothing is lost.

        Parameters
        ----------
        run
            The run.
        ledger
            Its `step_ledger`, if it was made already.

        Returns
        -------
        pandas.DataFrame
            Rows with rank and either start_us and duration_us, or step and lost_us; further columns explain.

        Raises
        ------
        Unmeasured
            If the run lacks what this detector reads.
        """
        for name in (*self.needs, *(table for table in self.reads if table in SCHEMAS)):
            if name not in run.signals:
                raise Unmeasured(run.missing.get(name, f"the run has no {name}"))
        given: dict[str, object] = {"config": run.config, "machine": run.machine, "world_size": run.world_size}
        for name in self.reads:
            if name in SCHEMAS:
                given[name] = getattr(run, name)
        if "ledger" in self.reads:
            given["ledger"] = step_ledger(run) if ledger is None else ledger
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
) -> Callable[[DetectorFunction], Detector]:
    """Make a function a detector.

    The names of its parameters are what it reads: tables of a run, or `ledger`, `config`, `machine`, `world_size`; it gets
    nothing else. It returns evidence; clipping to steps, severity, interval and floor are made by `perfnb.severity`.

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
        Ledger parts (or their beginnings) of which this detector explains at most what is left.
    needs
        Signals that must have been recorded, besides the tables read.
    flag_above, flag_above_on_host
        Share of step time from which a loss is a finding; on the host clock another one may hold.
    recorded_only_when
        Why no recorded run shows it yet; empty where one does.

    Raises
    ------
    TypeError
        If a parameter names nothing that exists.
    """

    def made(function: DetectorFunction) -> Detector:
        reads = tuple(inspect.signature(function).parameters)
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
        )

    return made
