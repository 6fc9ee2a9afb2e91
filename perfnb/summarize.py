"""Many ranks, each read and summarised where its file lies: only the summaries travel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final

import pandas as pd
from tqdm.auto import tqdm

from perfnb import tables
from perfnb.analyses import communication_overlap, idle_summary, kernel_summary
from perfnb.device_time import device_breakdown
from perfnb.errors import NotATraceError, PerfnbError, TraceFormatError, TruncatedTraceWarning
from perfnb.read.kineto.files import trace_files
from perfnb.read.kineto.one_rank import OneRank, Options, read_one
from perfnb.read.kineto.ranks import ranks_of
from perfnb.read.kineto.reader import joined, stacked
from perfnb.run import Run

Analysis = Callable[[Run], pd.DataFrame]

DEFAULT_ANALYSES: Final[tuple[Analysis, ...]] = (device_breakdown, communication_overlap, idle_summary, kernel_summary)
_PROGRESS_FROM_FILES: Final = 8
_KEPT: Final = ("steps", "phases", "collectives")
"""Tables that travel whole: a few rows per step, and what ranks have to be compared by."""

_LEFT: Final = ("host_ops", "device_ops", "allocations")


@dataclass(frozen=True, slots=True, eq=False)
class RankSummary:
    """What many ranks came to.

    Attributes
    ----------
    frames
        Name of an analysis to its table over all ranks, with a column rank. Moments in it are on the clock of their own rank,
        whose time 0 is that rank's first event.
    run
        A run with the steps, phases and collectives of all ranks on one clock, for what needs ranks together:
        `stragglers(summary.run)`, `align_clocks(summary.run)`. It has no host or device ops.
    failed
        Name of a file to the reason why it was not summarised.
    """

    frames: Mapping[str, pd.DataFrame]
    run: Run
    failed: Mapping[str, str]

    def __repr__(self) -> str:
        """One line: what was summarised, and what was not."""
        failed = f", {len(self.failed)} files failed" if self.failed else ""
        return f"RankSummary({len(self.run.ranks)} ranks{failed}: {', '.join(self.frames)})"


@dataclass(frozen=True, slots=True, eq=False)
class _Summary:
    """What comes back from one file: the tables that are kept, and those of the analyses."""

    one: OneRank
    frames: Mapping[str, pd.DataFrame]


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a file was not summarised; `is_other`: it is JSON of another kind."""

    reason: str
    is_other: bool = False


def summarize_ranks(
    path: str | PathLike[str],
    *more: str | PathLike[str],
    analyses: Sequence[Analysis] = DEFAULT_ANALYSES,
    executor: Executor | None = None,
    step_names: Sequence[str] = (),
    communication_names: Sequence[str] = (),
) -> RankSummary:
    """Tables over all ranks of a job, of which no two need to be in memory together.

    Each file is read, analysed and forgotten, in this process or on the workers of an executor. A file that cannot be read is
    named in `failed`, and the others go on.

    Parameters
    ----------
    path, *more
        Files, folders or glob patterns, one file per rank, as for `read_trace`. Workers read the files by these paths.
    analyses
        Functions from a run of one rank to a table, defined in a module that the workers can import. What compares ranks
        (`stragglers`, `align_clocks`) is asked of the summary's `run` instead.
    executor
        Any `concurrent.futures.Executor`: a `ProcessPoolExecutor`, or `client.get_executor()` of a Dask cluster.
    step_names, communication_names
        As for `read_trace`.

    Returns
    -------
    RankSummary
        The analyses' tables by name, one run for what compares ranks, and what failed.

    Raises
    ------
    RankConflictError
        If two files have the same rank, or belong to different jobs.
    TraceFormatError
        If no file can be summarised.

    Warns
    -----
    TruncatedTraceWarning
        If a file ends early.

    Examples
    --------
    >>> summary = summarize_ranks("data/samples/slow_rank")
    >>> summary.run.ranks, summary.frames["kernel_summary"].empty  # a job on CPUs
    ((0, 1), True)
    """
    files, skippable = trace_files([path, *more])
    options = Options(step_names=tuple(step_names), communication_names=tuple(communication_names))
    names = [_name(analysis) for analysis in analyses]
    if len(set(names)) < len(names):
        message = f"analyses need different names, but they are {', '.join(names)}"
        raise PerfnbError(message)
    answers = dict(zip(files, _answers(files, options, tuple(analyses), executor), strict=True))
    found = [answer for answer in answers.values() if isinstance(answer, _Summary)]
    failures = {file: answer for file, answer in answers.items() if isinstance(answer, _Failure)}
    skipped = [f"skipped {file.name}: {each.reason}" for file, each in failures.items() if each.is_other and file in skippable]
    failed = {_label(file, files): each.reason for file, each in failures.items() if not (each.is_other and file in skippable)}
    if not found:
        said = "; ".join([f"{name}: {reason}" for name, reason in failed.items()] + skipped)
        message = f"none of {len(files)} files can be summarised: {said}"
        raise TraceFormatError(message)
    run = joined([answer.one for answer in found], skipped)
    for answer in found:
        if answer.one.cut_sentence:
            warnings.warn(answer.one.cut_sentence, TruncatedTraceWarning, stacklevel=2)
    notes = (*run.notes, *(f"{name} failed: {reason}" for name, reason in failed.items()))
    return RankSummary(_together(found, names), replace(run, notes=notes, **_known(run)), failed)


def _known(run: Run) -> dict[str, Any]:
    """Signals and reasons of a run whose large tables stayed where they were read."""
    away = dict.fromkeys(_LEFT, "left where the files lie: ask summarize_ranks(analyses=[...]) for a table of it")
    return {"signals": run.signals - set(_LEFT), "missing": {**run.missing, **away}}


def _answers(
    files: Sequence[Path], options: Options, analyses: tuple[Analysis, ...], executor: Executor | None
) -> list[_Summary | _Failure]:
    """Summary of each file, or what went wrong."""
    is_silent = None if len(files) >= _PROGRESS_FROM_FILES else True
    with tqdm(total=len(files), desc="ranks", unit="rank", leave=False, disable=is_silent) as progress:
        if executor is None:
            answers = {}
            for file in files:
                answers[file] = _summary_or_failure(file, options, analyses)
                progress.update()
            return [answers[file] for file in files]
        futures = {executor.submit(_summary_or_failure, file, options, analyses): file for file in files}
        answers = {}
        for future in as_completed(futures):
            answers[futures[future]] = _result(future)
            progress.update()
        return [answers[file] for file in files]


def _result(future: Future[_Summary | _Failure]) -> _Summary | _Failure:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - a worker died: this rank is named, and the others go on
        return _Failure(_reason(error))


def _summary_or_failure(file: Path, options: Options, analyses: tuple[Analysis, ...]) -> _Summary | _Failure:
    """Runs on a worker: everything but the summary is forgotten when it returns.

    A failure travels as text: an exception that cannot be unpickled would break the whole pool.
    """
    try:
        one = read_one(file, options)
        run = joined([one])
        frames = {_name(analysis): analysis(run) for analysis in analyses}
    except NotATraceError as error:
        return _Failure(error.what, is_other=True)
    except Exception as error:  # noqa: BLE001 - a failed rank is named, and the others go on
        return _Failure(_reason(error))
    kept = {name: frame if name in _KEPT else tables.empty(name) for name, frame in one.frames.items()}
    return _Summary(replace(one, frames=kept), frames)


def _together(found: Sequence[_Summary], names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Table of each analysis over all ranks, each on its own clock."""
    ones = [answer.one for answer in found]
    ranks, _ = ranks_of([one.path for one in ones], [one.keys for one in ones])
    ordered = sorted(zip(ranks, found, strict=True), key=lambda pair: pair[0])
    return {name: stacked([_of_rank(answer.frames[name], rank) for rank, answer in ordered]) for name in names}


def _of_rank(frame: pd.DataFrame, rank: int) -> pd.DataFrame:
    return frame.assign(rank=rank) if len(frame) else frame


def _name(analysis: Analysis) -> str:
    return getattr(analysis, "__name__", type(analysis).__name__)


def _label(file: Path, files: Sequence[Path]) -> str:
    """Name of a file, with its folder where two files have the same name."""
    return file.name if sum(other.name == file.name for other in files) == 1 else f"{file.parent.name}/{file.name}"


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PerfnbError) else f"{type(error).__name__}: {error}"
