"""Calls of collectives: one row per communication kernel, and per range of a host library such as gloo."""

from __future__ import annotations

import json
import math
import re
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import per_text
from perfnb.read.kineto.around import Around
from perfnb.read.kineto.classify import nullable
from perfnb.read.kineto.columns import ABSENT, Int64s
from perfnb.read.kineto.communication import BYTES_OF, collective_of
from perfnb.read.kineto.rows import RawTrace
from perfnb.read.kineto.stamps import MISSING, whole_number

_HOST_PATTERN: Final = re.compile(
    r"^(gloo|mpi|ucc):"
)  # torch/csrc/distributed/c10d/ProcessGroup{Gloo,MPI,UCC}.cpp name ranges so
_SUFFIX: Final = re.compile(r"^c10::")  # of a dtype in the argument types of operators
_LONGEST_RANK: Final = 10  # digits
_LARGEST_GROUP: Final = 1 << 20  # ranks: past it a number is no size of a group

Objects = NDArray[np.object_]
Rows = NDArray[np.intp]


def collectives(
    raw: RawTrace, device: tuple[pd.DataFrame, Rows], host: tuple[pd.DataFrame, Rows], ranges: Around
) -> pd.DataFrame:
    """Calls of one rank as table collectives.

    A kernel's own arguments count first, then those of the `record_param_comms` operator around its launch; for the type of
    the call then the range around the launch that names it, and only last the kernel's name.

    Parameters
    ----------
    raw
        The file.
    device, host
        Device rows and host rows, as `classify` makes them, with their positions in the file's columns.
    ranges
        What is around the launches of the device rows.
    """
    frames = [_on_device(raw, device, host, ranges), _on_host(host[0])]
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


def _on_device(raw: RawTrace, device: tuple[pd.DataFrame, Rows], host: tuple[pd.DataFrame, Rows], ranges: Around) -> pd.DataFrame:
    frame, positions = device
    chosen = np.flatnonzero(per_text(frame["kind"], "communication".__eq__))
    kernels, own = frame.iloc[chosen], positions[chosen]
    stated_by = ranges.arguments[chosen]
    other = np.where(stated_by >= 0, host[1][stated_by] if len(host[1]) else 0, ABSENT)

    def texts(column: str) -> Objects:
        codes = raw.texts[column].codes
        found = codes[own]
        found = np.where((found == ABSENT) & (other >= 0), codes[other] if len(codes) else ABSENT, found)
        return _with_none(raw.texts[column].distinct)[found]

    named = _with_none(host[0]["name"].cat.categories.to_numpy(dtype=object))
    around = named[np.where(ranges.names[chosen] >= 0, _codes(host[0]["name"], ranges.names[chosen]), -1)]
    group = np.where(pd.isna(texts("group")), texts("group_id"), texts("group"))
    size = _numbers(texts("group_size"))
    elements_in = _numbers(texts("elements_in"))
    dtype = texts("dtype")
    calls = _numbers(texts("call"))
    in_order = kernels.assign(group=pd.Series(group, index=kernels.index, dtype=object).fillna("")).groupby(
        ["group", "stream"], dropna=False
    )
    position = in_order.cumcount().to_numpy(dtype=np.int64)
    return pd.DataFrame(
        {
            "rank": kernels["rank"].to_numpy(),
            "group": group,
            "sequence": nullable(np.where(calls == MISSING, position, calls)),
            "collective": _types(texts("collective"), around, kernels["name"].astype(object).to_numpy()),
            "dtype": dtype,
            "elements_in": nullable(elements_in),
            "elements_out": nullable(_numbers(texts("elements_out"))),
            "group_size": nullable(size),
            "members": _members(texts("members"), texts("first_member"), texts("member_stride"), size),
            "bytes": nullable(_bytes(elements_in, dtype)),
            "device": kernels["device"].array,
            "stream": kernels["stream"].array,
            "launch_us": _launch_us(host[0], ranges.calls[chosen]),
            "start_us": kernels["start_us"].to_numpy(),
            "duration_us": kernels["duration_us"].to_numpy(),
            "clock": "device",
        }
    )


def _launch_us(host: pd.DataFrame, call: NDArray[np.int64]) -> NDArray[np.float64]:
    """Start of each launch call; NaN where none was recorded."""
    return np.append(host["start_us"].to_numpy(dtype=np.float64), np.nan)[call]  # the last one is that of `ROOT`


def _on_host(host: pd.DataFrame) -> pd.DataFrame:
    """Ranges of libraries that communicate on the host and leave no device row."""
    ranges = host[per_text(host["name"], _HOST_PATTERN.search) & per_text(host["category"], "annotation".__eq__)]
    names = ranges["name"].astype(object).to_numpy()
    elements = np.array([_elements(shapes) for shapes in ranges["input_shapes"].astype(object)], dtype=np.int64)
    dtype = np.array([_first_type(types) for types in ranges["input_types"].astype(object)], dtype=object)
    group = np.array([name.split(":")[0] for name in names], dtype=object)
    return pd.DataFrame(
        {
            "rank": ranges["rank"].to_numpy(),
            "group": group,
            "sequence": pd.Series(group).groupby(group).cumcount().astype("Int64").to_numpy(dtype=object),
            "collective": np.array([collective_of(name) for name in names], dtype=object),
            "dtype": dtype,
            "elements_in": nullable(elements),
            "elements_out": nullable(elements),
            "bytes": nullable(_bytes(elements, dtype)),
            "start_us": ranges["start_us"].to_numpy(),
            "duration_us": ranges["duration_us"].to_numpy(),
            "clock": "host",
        }
    )


def _with_none(values: Objects) -> Objects:
    """Values and a last one, None, for code -1."""
    return np.array([*values, None], dtype=object)


def _codes(column: pd.Series, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    codes = column.cat.codes.to_numpy()
    return codes[rows].astype(np.int64) if len(codes) else np.full(len(rows), ABSENT, dtype=np.int64)


def _types(stated: Objects, around: Objects, name: Objects) -> Objects:
    """Type of each call: as stated, as named around the launch, or as the kernel's name has it; None where nothing says it."""
    answers = {text: collective_of(text) for text in {*stated, *around, *name} if isinstance(text, str)}
    found = [
        answers.get(one) or answers.get(two) or answers.get(three) for one, two, three in zip(stated, around, name, strict=True)
    ]
    return np.array([*found, None], dtype=object)[:-1]


def _numbers(texts: Objects) -> Int64s:
    known = {text: whole_number(text) if isinstance(text, str) else MISSING for text in set(texts)}
    return np.array([known[text] for text in texts], dtype=np.int64)


def _bytes(elements: Int64s, dtype: Objects) -> Int64s:
    width = np.array(
        [BYTES_OF.get(text.lower(), MISSING) if isinstance(text, str) else MISSING for text in dtype], dtype=np.int64
    )
    known = (elements >= 0) & (width > 0) & (elements < (1 << 59))
    return np.where(known, np.where(known, elements, 0) * np.where(known, width, 0), MISSING)


def _members(ranks: Objects, first: Objects, stride: Objects, size: Int64s) -> Objects:
    """Ranks of each call's group as text; None where the trace does not list them all."""
    known: dict[tuple[object, ...], str | None] = {}
    found = []
    for key in zip(ranks, first, stride, size.tolist(), strict=True):
        if key not in known:
            known[key] = _member_list(*key)
        found.append(known[key])
    return np.array([*found, None], dtype=object)[:-1]


def _member_list(ranks: object, first: object, stride: object, size: int) -> str | None:
    if isinstance(ranks, str) and "..." not in ranks and (numbers := re.findall(r"\d+", ranks)):
        return ",".join(str(int(number)) for number in numbers) if max(map(len, numbers)) < _LONGEST_RANK else None
    if not isinstance(first, str) or not isinstance(stride, str):
        return None
    begin, step = whole_number(first), whole_number(stride)
    if begin < 0 or step <= 0 or not 0 < size <= _LARGEST_GROUP:
        return None
    return ",".join(str(begin + step * number) for number in range(size))


def _elements(shapes: object) -> int:
    """Elements of the first input; `shapes` is what Kineto writes as Input Dims."""
    first = _first(shapes)
    while isinstance(first, list) and first and isinstance(first[0], list):
        first = first[0]
    if not isinstance(first, list) or not all(type(size) is int and size >= 0 for size in first):
        return int(MISSING)
    return whole_number(math.prod(first))


def _first_type(types: object) -> str | None:
    first = _first(types)
    return _SUFFIX.sub("", first) if isinstance(first, str) and first else None


def _first(text: object) -> object:
    """First entry of a JSON list; None where there is none."""
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value[0] if isinstance(value, list) and value else None
