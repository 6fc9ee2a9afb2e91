"""Trace files or a folder of them -> a Run: the files of all ranks on one clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from os import PathLike
from pathlib import Path
from typing import Any, Final

import pandas as pd

from perfnb import tables
from perfnb.config.json_file import CONFIG_NAME, config_beside
from perfnb.errors import ConfigError, NotATraceError, TraceFormatError
from perfnb.read.kineto import classify
from perfnb.read.kineto.collectives import collectives
from perfnb.read.kineto.phases import phases
from perfnb.read.kineto.ranks import ranks_of, world_size_of
from perfnb.read.kineto.rows import RawTrace, read_rows
from perfnb.run import Machine, Run

_LEFT_OUT: Final = {
    "[memory]": "memory events",
    "gpu_user_annotation": "annotations repeated on the device",
    "ph M": "names of processes and threads",
    "ph f": "ends of arrows",
    "ph i": "instants",
    "ph s": "starts of arrows",
    "python_function": "Python functions",
    "trace": "marks of the recording",
}
_LARGEST: Final = 2**62  # past it a number is no size
_SUFFIXES: Final = (".json", ".json.gz")


def read_kineto(path: str | PathLike[str], *more: str | PathLike[str], executor: Executor | None = None) -> Run:
    """Run of one or several trace files, or of a folder with one file per rank.

    Reads what `torch.profiler` exports (Kineto, Chrome trace format), plain or gzip, of any version. Stamps are kept to the
    nanosecond; rows of Python functions are left out and counted.

    Parameters
    ----------
    path, *more
        Files, or folders: of a folder every `*.json` and `*.json.gz` directly in it; those that are no traces are skipped
        and named in `Run.notes`. All must belong to one job.
    executor
        Reads the files of a run side by side, for example a `ProcessPoolExecutor`; in this process by default.

    Returns
    -------
    Run
        Tables steps, phases, host_ops, device_ops and collectives; times in microseconds since the run's first event. Its
        config is that of a config.json beside the first trace, if there is one.

    Raises
    ------
    TraceFormatError
        If a file is no trace, is damaged or cut off, or a folder holds no trace.
    RankConflictError
        If two files have the same rank.

    Examples
    --------
    >>> run = read_kineto("data/samples/healthy")
    >>> run.ranks
    (0,)
    """
    files, skippable = _files([Path(each) for each in (path, *more)])
    raws, skipped = _read_all(files, skippable, executor)
    notes: list[str] = []
    paths, keys = [raw.path for raw in raws], [raw.keys for raw in raws]
    ranks, assumed = ranks_of(paths, keys)
    notes += [assumed] if assumed else []
    origin = min(int(raw.start_ns.min()) for raw in raws)
    ordered = sorted(zip(ranks, raws, strict=True), key=lambda pair: pair[0])
    host = [classify.host_ops(raw, rank, origin) for rank, raw in ordered]
    device = [classify.device_ops(raw, rank, origin) for rank, raw in ordered]
    found = [classify.steps(each, rank) for each, (rank, _) in zip(host, ordered, strict=True)]
    steps = [frame for frame, _ in found]
    notes += [note for _, note in found if note]
    config, skipped = _config(paths[0], skipped)
    notes += skipped
    for raw in raws:
        notes += _notes(raw)
    tables_of = {
        "steps": steps,
        "phases": [phases(each, own) for each, own in zip(host, steps, strict=True)],
        "host_ops": host,
        "device_ops": device,
        "collectives": [collectives(ours, theirs) for ours, theirs in zip(device, host, strict=True)],
    }
    made = {name: tables.conform(name, _stacked(frames)) for name, frames in tables_of.items()}
    world_size = world_size_of(paths, keys)
    signals, missing = _signals(made, world_size)
    return Run(
        steps=made["steps"],
        phases=made["phases"],
        host_ops=made["host_ops"],
        device_ops=made["device_ops"],
        collectives=made["collectives"],
        config=config,
        machine=_machine(raws),
        signals=signals,
        missing=missing,
        notes=tuple(notes),
        world_size=world_size,
        source=tuple(raw.path.name for _, raw in ordered),
    )


def _files(paths: Sequence[Path]) -> tuple[list[Path], frozenset[Path]]:
    """Files to read, and those among them that may be skipped because a folder merely holds them."""
    files: list[Path] = []
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.name.endswith(_SUFFIXES) and each.is_file())
            if not inside:
                others = ", ".join(sorted(each.name for each in path.iterdir())[:6]) or "nothing"
                message = (
                    f"folder {path.name or path} holds no *.json or *.json.gz file (it holds {others}): name a folder of traces"
                )
                raise TraceFormatError(message)
            found.update(inside)
            files += inside
        elif path.exists():
            files.append(path)
        else:
            message = f"{path} does not exist"
            raise TraceFormatError(message)
    return list(dict.fromkeys(files)), frozenset(found)


def _read_all(files: Sequence[Path], skippable: frozenset[Path], executor: Executor | None) -> tuple[list[RawTrace], list[str]]:
    answers: Iterable[RawTrace | NotATraceError] = executor.map(_read_one, files) if executor else map(_read_one, files)
    raws: list[RawTrace] = []
    skipped: list[str] = []
    for file, answer in zip(files, answers, strict=True):
        if isinstance(answer, RawTrace):
            raws.append(answer)
        elif file in skippable:
            skipped.append(f"skipped {answer.name}: {answer.what}")
        else:
            raise answer
    if not raws:
        message = f"no profiler trace in {', '.join(sorted({file.parent.name for file in files}))}: " + "; ".join(skipped)
        raise TraceFormatError(message)
    return raws, skipped


def _read_one(file: Path) -> RawTrace | NotATraceError:
    try:
        return read_rows(file)
    except NotATraceError as error:
        return error


def _config(trace: Path, skipped: list[str]) -> tuple[Mapping[str, Any], list[str]]:
    """The training's config where a config.json lies beside the trace, and the notes on skipped files without that one."""
    try:
        config = config_beside(trace, {})
    except ConfigError as error:
        return {}, [*skipped, str(error)]
    return config, [note for note in skipped if not (config and note.startswith(f"skipped {CONFIG_NAME}:"))]


def _stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames of all ranks one below the other; categoricals get the union of their categories."""
    filled = [frame for frame in frames if len(frame)]
    if len(filled) <= 1:
        return filled[0] if filled else frames[0]
    texts = [name for name in filled[0].columns if any(isinstance(frame[name].dtype, pd.CategoricalDtype) for frame in filled)]
    joined = {name: pd.api.types.union_categoricals([frame[name].astype("category") for frame in filled]) for name in texts}
    rest = pd.concat([frame.drop(columns=texts) for frame in filled], ignore_index=True)
    return rest.assign(**joined)


def _notes(raw: RawTrace) -> list[str]:
    """One sentence on what a file holds that no table does."""
    left_out = ", ".join(f"{count:,} {_LEFT_OUT.get(kind, kind)}" for kind, count in sorted(raw.counts.items()))
    return [f"{raw.path.name}: left out {left_out}"] if left_out else []


def _machine(raws: Sequence[RawTrace]) -> Machine:
    listed = raws[0].keys.get("deviceProperties")
    devices = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return Machine(
        devices=tuple(str(each.get("name", "")) for each in devices),
        device_memory_bytes=tuple(
            size if isinstance(size := each.get("totalGlobalMem"), int) and 0 <= size < _LARGEST else 0 for each in devices
        ),
    )


def _signals(made: dict[str, pd.DataFrame], world_size: int | None) -> tuple[frozenset[str], dict[str, Any]]:
    """What was recorded, and for what was not, why."""
    host, device, steps = made["host_ops"], made["device_ops"], made["steps"]
    missing: dict[str, str] = {}
    if device.empty:
        missing["device_ops"] = "the trace holds no kernel, copy or memset: a CPU job, or CUDA activities were not recorded"
    if not host["category"].isin(["operator", "annotation"]).any():
        missing["host_ops"] = "the trace holds no host operator: record with ProfilerActivity.CPU as well"
    if steps.empty:
        missing["steps"] = "no ProfilerStep ranges: call prof.step() once per iteration inside torch.profiler.profile(...)"
    if made["phases"].empty:
        missing["phases"] = missing.get("steps", missing.get("host_ops", "no step was recorded"))
    elif made["phases"].loc[made["phases"]["phase"].eq("other"), "wall_us"].isna().all():
        missing["phases.other"] = "no backward functions in the steps, so forward and the rest cannot be told apart"
    if not host["name"].astype(object).str.contains(classify.LOADER_PATTERN).any():
        missing["loader"] = "no DataLoader range in the trace: batches come from something else, or CPU activity was not recorded"
    if made["collectives"].empty and (world_size or 0) > 1:
        missing["collectives"] = f"the job has {world_size} ranks, but no communication was recognised in the trace"
    known = {name for name, frame in made.items() if not frame.empty} | {"collectives", "loader", "phases.other"}
    return frozenset(known - missing.keys()), missing
