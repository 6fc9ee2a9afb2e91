"""Trace files or a folder of them -> a Run: the files of all ranks on one clock."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial as bound
from os import PathLike
from pathlib import Path
from typing import Any, Final

import pandas as pd

from perfnb import tables
from perfnb.config.json_file import CONFIG_NAME, config_beside
from perfnb.errors import ConfigError, NotATraceError, TraceFormatError, TruncatedTraceWarning
from perfnb.read.kineto.files import trace_files
from perfnb.read.kineto.one_rank import OneRank, Options, read_one, shifted
from perfnb.read.kineto.properties import constants_of
from perfnb.read.kineto.ranks import ranks_of, world_size_of
from perfnb.read.kineto.rows import ParserName
from perfnb.read.kineto.signals import signals_of
from perfnb.run import Machine, Run

_LARGEST: Final = 2**62  # past it a number is no size


def read_kineto(
    path: str | PathLike[str],
    *more: str | PathLike[str],
    step_names: Sequence[str] = (),
    communication_names: Sequence[str] = (),
    python: bool = False,
    partial: bool = False,
    executor: Executor | None = None,
    parser: ParserName = "auto",
) -> Run:
    """Run of one or several trace files, or of a folder with one file per rank.

    Reads what `torch.profiler` exports (Kineto, Chrome trace format), plain or gzip, of any version. Stamps are kept to the
    nanosecond. A file that ends early, as that of a crashed job, is read up to its last whole event.

    Parameters
    ----------
    path, *more
        Files, folders or glob patterns: of a folder every `*.json` and `*.json.gz` directly in it; those that are no traces
        are skipped and named in `Run.notes`. All must belong to one job.
    step_names
        Starts of the names of annotations that are steps, beside "ProfilerStep#".
    communication_names
        Regular expressions, on names in lower case, of kernels that communicate, beside those of the known libraries.
    python
        Whether to keep the rows of Python functions (`with_stack=True`), often nine tenths of a file.
    partial
        Whether a file that is malformed before its end is read up to there.
    executor
        Reads the files of a run side by side, for example a `ProcessPoolExecutor`; in this process by default. For more ranks
        than fit into memory use `summarize_ranks`.
    parser
        "auto", "msgspec" or "numba" (needs `perfnb[fast]`): the tables are the same; "auto" takes numba for large files.

    Returns
    -------
    Run
        Tables steps, phases, host_ops, device_ops, collectives and allocations; times in microseconds since the run's first
        event. Its config is that of a config.json beside the first trace, if there is one.

    Raises
    ------
    TraceFormatError
        If a file is no trace or is malformed before its end, or a folder holds no trace.
    RankConflictError
        If two files have the same rank, or belong to different jobs.

    Warns
    -----
    TruncatedTraceWarning
        If a file ends early.

    Examples
    --------
    >>> run = read_kineto("data/samples/healthy")
    >>> run.ranks
    (0,)
    """
    files, skippable = trace_files([path, *more])
    options = Options(tuple(step_names), tuple(communication_names), python, partial, parser)
    read, skipped = _read_all(files, skippable, options, executor)
    run = joined(read, skipped)
    for one in read:
        if one.cut_sentence:
            warnings.warn(one.cut_sentence, TruncatedTraceWarning, stacklevel=2)
    return run


def joined(read: Sequence[OneRank], skipped: Sequence[str] = ()) -> Run:
    """One run of the files of all its ranks; what ended early is said in its notes, and to be warned of by the caller."""
    paths, keys = [each.path for each in read], [each.keys for each in read]
    ranks, assumed = ranks_of(paths, keys)
    notes = [assumed] if assumed else []
    world_size = world_size_of(paths, keys)
    lost = _without_base(read)
    origin = min(each.origin_ns for each in read if each not in lost)
    notes += [f"{one.path.name} lost its base time: its clock is not that of the other ranks" for one in lost]
    ordered = sorted(zip(ranks, read, strict=True), key=lambda pair: pair[0])
    placed = [shifted(one, rank, one.origin_ns if one in lost else origin) for rank, one in ordered]
    made: dict[str, Any] = {name: tables.conform(name, stacked([frames[name] for frames in placed])) for name in placed[0]}
    if world_size is not None and len(ranks) < world_size:
        notes.append(f"read {len(ranks)} of {world_size} ranks: answers that need all of them say so")
    config, left = _config(paths[0], skipped)
    notes += left
    for _, one in ordered:
        notes += one.notes
    signals, missing = signals_of(made, world_size)
    return Run(
        **made,
        config=config,
        machine=_machine(read),
        signals=signals,
        missing=missing,
        notes=tuple(notes),
        world_size=world_size,
        source=tuple(one.path.name for _, one in ordered),
    )


def _without_base(read: Sequence[OneRank]) -> list[OneRank]:
    """Files that were cut off before their base time, where other files have one."""
    without = [one for one in read if "baseTimeNanoseconds" not in one.keys]
    return [one for one in without if one.cut_sentence] if len(without) < len(read) else []


def _read_all(
    files: Sequence[Path], skippable: frozenset[Path], options: Options, executor: Executor | None
) -> tuple[list[OneRank], list[str]]:
    one = bound(_read_or_say, options=options)
    answers: Iterable[OneRank | NotATraceError] = executor.map(one, files) if executor else map(one, files)
    read: list[OneRank] = []
    skipped: list[str] = []
    for file, answer in zip(files, answers, strict=True):
        if isinstance(answer, OneRank):
            read.append(answer)
        elif file in skippable:
            skipped.append(f"skipped {answer.name}: {answer.what}")
        else:
            raise answer
    if not read:
        message = f"no profiler trace in {', '.join(sorted({file.parent.name for file in files}))}: " + "; ".join(skipped)
        raise TraceFormatError(message)
    return read, skipped


def _read_or_say(file: Path, options: Options) -> OneRank | NotATraceError:
    try:
        return read_one(file, options)
    except NotATraceError as error:
        return error


def _config(trace: Path, skipped: Sequence[str]) -> tuple[Mapping[str, Any], list[str]]:
    """The training's config where a config.json lies beside the trace, and the notes on skipped files without that one."""
    try:
        config = config_beside(trace, {})
    except ConfigError as error:
        return {}, [*skipped, str(error)]
    return config, [note for note in skipped if not (config and note.startswith(f"skipped {CONFIG_NAME}:"))]


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of all ranks one below the other; categoricals get the union of their categories."""
    filled = [frame for frame in frames if len(frame)]
    if len(filled) <= 1:
        return filled[0] if filled else frames[0]
    texts = [name for name in filled[0].columns if any(isinstance(frame[name].dtype, pd.CategoricalDtype) for frame in filled)]
    together = {
        name: pd.api.types.union_categoricals([frame[name].astype("category") for frame in filled], sort_categories=True)
        for name in texts
    }
    rest = pd.concat([frame.drop(columns=texts) for frame in filled], ignore_index=True)
    return rest.assign(**together)[list(filled[0].columns)]


def _machine(read: Sequence[OneRank]) -> Machine:
    listed = read[0].keys.get("deviceProperties")
    devices = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return Machine(
        devices=tuple(str(each.get("name", "")) for each in devices),
        device_memory_bytes=tuple(
            size if isinstance(size := each.get("totalGlobalMem"), int) and 0 <= size < _LARGEST else 0 for each in devices
        ),
        constants=constants_of(devices),
    )
