"""TensorBoard's event files: their scalars, up to where a file is torn."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd

from perfnb.errors import LogFormatError
from perfnb.read.metric_cells import MOST_COLUMNS
from perfnb.read.metric_rows import Rows
from perfnb.read.training_log.lightning import hyperparameters, newest_version
from perfnb.read.training_log.log import Log, one_of
from perfnb.text import clean, count

MARK: Final = b"brain.Event:"  # what the first event of each file says: tensorboard/compat/proto/event.proto, file_version
_HELD_OUT: Final = ("val", "validation", "eval")
_LARGEST_EVENT: Final = 1 << 20  # larger ones are pictures, graphs and audio
_HEAD: Final = struct.Struct("<QI")
_CHECKSUM: Final = struct.Struct("<I")
_NEEDED: Final = "reading TensorBoard's event files needs the package tensorboard: pip install tensorboard"


def event_files(folder: Path) -> list[Path]:
    """Event files of a folder, in the order in which they were begun."""
    return sorted(path for path in folder.iterdir() if "tfevents" in path.name and path.is_file())


def read(path: Path) -> Log:
    """The log of an event file, or of a folder of them.

    Subfolders named train and val (validation, eval) belong together; of others the folder must hold one only.

    Raises
    ------
    LogFormatError
        If the package tensorboard is missing, or there are no scalars.
    """
    notes: list[str] = []
    values: dict[str, dict[int, float]] = {}
    moments: dict[int, float] = {}
    config: dict[str, Any] = {}
    for prefix, files in _groups(path):
        last: dict[str, int] = {}
        for file in files:
            for step, moment, tag, value in _scalars(file, config, notes):
                name = f"{prefix}{tag}"
                series = values.setdefault(name, {})
                if len(values) > MOST_COLUMNS:
                    message = f"{path.name} has more than {MOST_COLUMNS:,} tags: values must not be part of names"
                    raise LogFormatError(message)
                if step < last.get(name, step):
                    _forget(series, name, step, notes)
                last[name] = step
                series[step] = value
                moments[step] = min(moment, moments.get(step, moment))
    if not values:
        message = f"{path.name} holds no scalars: log some with SummaryWriter.add_scalar"
        raise LogFormatError(message)
    index = sorted({step for series in values.values() for step in series})
    frame = pd.DataFrame({"step": index, "wall_time": [moments[step] for step in index]})
    written = {name: pd.Series([series.get(step) for step in index], dtype=object) for name, series in values.items()}
    own = {f"{name} (tag)" if name in frame else name: column for name, column in written.items()}
    folder = newest_version(path) if path.is_dir() else path.parent
    parameters, said = hyperparameters(folder)
    rows = Rows(pd.concat([frame, pd.DataFrame(own)], axis=1), "training_metrics", path.name)
    return Log([rows], {**parameters, **config}, (*dict.fromkeys(notes), *said))


def _groups(path: Path) -> list[tuple[str, list[Path]]]:
    """Files that belong together, with what their tags get in front."""
    if path.is_file():
        return [("", [path])]
    path = newest_version(path)
    if files := event_files(path):
        return [("", files)]
    inside = sorted({file.parent for file in path.rglob("*tfevents*") if file.is_file()})
    if not inside:
        message = f"{path.name} holds no event files (*tfevents*)"
        raise LogFormatError(message)
    if all(folder.name in (*_HELD_OUT, "train") for folder in inside):
        return [("val/" if folder.name in _HELD_OUT else "", event_files(folder)) for folder in inside]
    return [("", event_files(one_of(inside, "folders of event files", path.name)))]


def _forget(series: dict[int, float], name: str, step: int, notes: list[str]) -> None:
    """Forget values of steps that a resumed training did again."""
    again = [known for known in series if known >= step]
    if again:
        notes.append(
            f"resumed: {clean(name, 80)!r} went back to step {step}: "
            f"{count(len(again), 'value')} up to step {max(again)} from before are left out"
        )
    for known in again:
        del series[known]


def _scalars(file: Path, config: dict[str, Any], notes: list[str]) -> Iterator[tuple[int, float, str, float]]:
    try:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - with tensorboard
        from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - optional
    except ImportError as error:
        raise LogFormatError(_NEEDED) from error
    for record in _records(file, notes):
        try:
            event = event_pb2.Event.FromString(record)
        except DecodeError:
            notes.append(f"{file.name}: an event is damaged, and was left out")
            continue
        for value in event.summary.value:
            kind = value.metadata.plugin_data.plugin_name
            if kind == "hparams":
                config.update(_hyperparameters(value.metadata.plugin_data.content))
            number = _number(value)
            if number is None:
                if kind not in ("", "hparams"):
                    notes.append(f"{file.name}: values of the kind {clean(kind, 40)!r} are left out")
                continue
            yield int(event.step), float(event.wall_time), value.tag, number


def _number(value: Any) -> float | None:
    """The value of a scalar, old (simple_value) or new (a tensor of one element); None of anything else."""
    which = value.WhichOneof("value")
    if which == "simple_value":
        return float(value.simple_value)
    if which != "tensor" or value.metadata.plugin_data.plugin_name not in ("", "scalars"):
        return None
    from tensorboard.util import tensor_util  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - optional

    try:
        array = tensor_util.make_ndarray(value.tensor)
    except (TypeError, ValueError):
        return None
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiub" else None


def _hyperparameters(content: bytes) -> dict[str, Any]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - with tensorboard
    from tensorboard.plugins.hparams import plugin_data_pb2  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - optional

    try:
        found = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    except DecodeError:
        return {}
    return {str(name): getattr(value, value.WhichOneof("kind") or "", None) for name, value in found.items()}


def _records(file: Path, notes: list[str]) -> Iterator[bytes]:
    """Records of a file, checked, up to where it is torn: length, its checksum, data, their checksum."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - optional

    number = 0
    with file.open("rb") as opened:
        while head := opened.read(_HEAD.size):
            if len(head) < _HEAD.size:
                notes.append(f"{file.name} is torn after {count(number, 'event')}: a job was killed, or still writes it")
                return
            length, checksum = _HEAD.unpack(head)
            if masked_crc32c(head[:8]) != checksum:
                notes.append(f"{file.name} is damaged after {count(number, 'event')}: the rest was left out")
                return
            if length > _LARGEST_EVENT:
                opened.seek(length + _CHECKSUM.size, 1)
                notes.append(f"{file.name}: events over {_LARGEST_EVENT:,} bytes, which hold no scalars, are left out")
                number += 1
                continue
            data, tail = opened.read(length), opened.read(_CHECKSUM.size)
            if len(data) < length or len(tail) < _CHECKSUM.size:
                notes.append(f"{file.name} is torn after {count(number, 'event')}: a job was killed, or still writes it")
                return
            if masked_crc32c(data) != _CHECKSUM.unpack(tail)[0]:
                notes.append(f"{file.name} is damaged after {count(number, 'event')}: the rest was left out")
                return
            number += 1
            yield data
