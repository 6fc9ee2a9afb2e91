"""Calls of collectives: one row per communication kernel, and per range of a host library such as gloo."""

from __future__ import annotations

import math
from typing import Final

import pandas as pd

from perfnb.read.kineto.communication import BYTES_OF, collective_of

_LARGEST: Final = 2**62  # past it a number is no count
_HOST_PATTERN: Final = r"^gloo:"  # torch/csrc/distributed/c10d/ProcessGroupGloo.cpp names its ranges so
_COLUMNS: Final = ("rank", "group", "sequence", "collective", "dtype", "elements_in", "elements_out", "group_size", "bytes")


def collectives(device: pd.DataFrame, host: pd.DataFrame) -> pd.DataFrame:
    """Calls of one rank, from its device rows and its host rows as `classify` made them; columns of table collectives."""
    kernels = device[device["kind"].eq("communication")]
    on_device = kernels.assign(
        collective=_types(kernels, stated=True),
        sequence=_numbers(kernels["call"]),
        elements_in=_numbers(kernels["elements_in"]),
        elements_out=_numbers(kernels["elements_out"]),
        group_size=_numbers(kernels["group_size"]),
        dtype=_texts(kernels["dtype"]),
        group=_texts(kernels["group"]),
        clock="device",
    )
    ranges = host[host["category"].eq("annotation") & host["name"].astype(object).str.contains(_HOST_PATTERN)]
    on_host = ranges.assign(
        collective=_types(ranges, stated=False),
        sequence=pd.array(range(len(ranges)), dtype="Int64"),
        elements_in=pd.array([_elements(shapes) for shapes in ranges["shapes"]], dtype="Int64"),
        elements_out=pd.array([_elements(shapes) for shapes in ranges["shapes"]], dtype="Int64"),
        group_size=pd.array([pd.NA] * len(ranges), dtype="Int64"),
        dtype=_texts(ranges["types"].map(lambda types: types[0] if isinstance(types, list) and types else None)),
        group="gloo",
        clock="host",
    )
    frame = pd.concat([each for each in (on_device, on_host) if len(each)] or [on_device], ignore_index=True)
    width = frame["dtype"].astype(object).map(lambda dtype: BYTES_OF.get(str(dtype).lower(), pd.NA)).astype("Int64")
    return frame.assign(bytes=frame["elements_in"] * width)[[*_COLUMNS, "start_us", "duration_us", "clock"]]


def _types(rows: pd.DataFrame, *, stated: bool) -> pd.Series:
    by_name = {name: collective_of(str(name)) for name in rows["name"].unique()}
    types = rows["name"].astype(object).map(by_name)
    if not stated:
        return types
    return rows["collective"].map(lambda name: collective_of(name) if isinstance(name, str) else None).fillna(types)


def _numbers(values: pd.Series) -> pd.Series:
    whole = values.map(lambda value: value if type(value) is int and abs(value) < _LARGEST else None)
    return whole.astype("Int64")


def _texts(values: pd.Series) -> pd.Series:
    return values.map(lambda value: None if value is None or value is pd.NA else str(value)).astype(object)


def _elements(shapes: object) -> int | None:
    """Elements of the first input; `shapes` is what Kineto writes as Input Dims."""
    if not isinstance(shapes, list) or not shapes or not isinstance(shapes[0], list):
        return None
    first = shapes[0]
    while first and isinstance(first[0], list):
        first = first[0]
    if not all(type(size) is int and 0 <= size < _LARGEST for size in first):
        return None
    elements = math.prod(first)
    return elements if elements < _LARGEST else None
