"""The tables of a recorded run, kept as Parquet beside its files so that it is read faster the next time."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
import pandas as pd

import perfnb
from perfnb import tables
from perfnb.read.recorded_columns import restored
from perfnb.record.json_rows import document
from perfnb.record.rank_lock import LOCK, PROCESS_FILE
from perfnb.run import Machine, Recording, Run
from perfnb.schemas import SCHEMAS

CACHE_VERSION: Final = 2
"""Version of what is kept; part of the key, so that another version's is never read."""

CACHE: Final = ".cache"
SMALLEST_BYTES: Final = 1 << 20
"""Of all files: smaller runs are read about as fast as their cache."""

_REST: Final = "run.json"


class _Rest(msgspec.Struct):
    """What a run holds beside its tables."""

    config: dict[str, Any]
    devices: tuple[str, ...]
    device_memory_bytes: tuple[int, ...]
    cpu_capacity: float | None
    torch_version: str
    signals: tuple[str, ...]
    missing: dict[str, str]
    notes: tuple[str, ...]
    world_size: int | None
    source: tuple[str, ...]
    recordings: tuple[Recording, ...]


def place_of(folder: Path, rank_folders: Sequence[Path]) -> Path | None:
    """Folder named by all that the run depends on; None where the run is small or pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        return None
    told: list[Any] = [CACHE_VERSION, perfnb.__version__]
    size = 0
    for each in rank_folders:
        with suppress(OSError):
            for entry in sorted(os.scandir(each), key=lambda found: found.name):
                if entry.name in (LOCK, PROCESS_FILE, CACHE):
                    continue
                state = entry.stat()
                told.append([each.name, entry.name, state.st_size, state.st_mtime_ns])
                size += state.st_size
    if size < SMALLEST_BYTES:
        return None
    return folder / CACHE / hashlib.blake2b(document({"key": told}), digest_size=16).hexdigest()


def load(place: Path | None) -> Run | None:
    """The run that was kept at a place of `place_of`; None where none was, or it cannot be read."""
    if place is None or not place.is_dir():
        return None
    try:
        return _read(place)
    except Exception:  # noqa: BLE001 - a damaged cache may fail in any way, and the files themselves are there
        with suppress(OSError):
            shutil.rmtree(place)
        return None


def keep(place: Path | None, run: Run) -> None:
    """Keep a run at a place of `place_of`; where that cannot be done, nothing is kept and nothing raised."""
    if place is None:
        return
    part = place.with_name(f"part-{os.getpid()}")
    try:
        part.mkdir(parents=True)
        _write(part, run)
        part.rename(place)
    except Exception:  # noqa: BLE001 - a read-only folder, a full disk, a config that JSON cannot hold: the run is read all the same
        shutil.rmtree(part, ignore_errors=True)
        return
    for other in place.parent.iterdir():
        if other != place and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)


def _write(place: Path, run: Run) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    for name in SCHEMAS:
        frame = getattr(run, name)
        if len(frame):
            table = arrow.Table.from_pandas(frame, preserve_index=False)
            parquet.write_table(table, place / f"{name}.parquet", compression="lz4", write_page_checksum=True)
    machine = run.machine
    rest = {
        "config": dict(run.config),
        "devices": machine.devices,
        "device_memory_bytes": machine.device_memory_bytes,
        "cpu_capacity": machine.cpu_capacity,
        "torch_version": machine.torch_version,
        "signals": sorted(run.signals),
        "missing": dict(run.missing),
        "notes": run.notes,
        "world_size": run.world_size,
        "source": run.source,
        "recordings": [{name: getattr(each, name) for name in Recording.__dataclass_fields__} for each in run.recordings],
        "tables": [name for name in SCHEMAS if len(getattr(run, name))],
    }
    (place / _REST).write_bytes(document(rest))


def _read(place: Path) -> Run:
    parquet = import_module("pyarrow.parquet")
    raw = (place / _REST).read_bytes()
    rest = msgspec.json.decode(raw, type=_Rest)
    there = msgspec.json.decode(raw)["tables"]
    made: dict[str, Any] = {
        name: tables.conform(name, _frame(parquet, place / f"{name}.parquet")) for name in SCHEMAS if name in there
    }
    return Run(
        **made,
        config=MappingProxyType(restored(rest.config)),
        machine=Machine(rest.devices, rest.device_memory_bytes, rest.cpu_capacity, torch_version=rest.torch_version),
        signals=frozenset(rest.signals),
        missing=MappingProxyType(rest.missing),
        notes=rest.notes,
        world_size=rest.world_size,
        source=rest.source,
        recordings=rest.recordings,
    )


def _frame(parquet: Any, path: Path) -> pd.DataFrame:
    frame: pd.DataFrame = parquet.read_table(path, page_checksum_verification=True, partitioning=None).to_pandas()
    named = [name for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)]
    return frame.assign(**{name: _with_texts(frame[name]) for name in named})


def _with_texts(column: pd.Series) -> pd.Categorical:
    """A categorical with the type of text that the other tables have."""
    return pd.Categorical.from_codes(column.cat.codes.to_numpy(), categories=column.cat.categories.astype("string"))
