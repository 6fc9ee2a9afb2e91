"""The charts of what ran on devices: kernels, and the operators, annotations and sequences that they belong to."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Final

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.analyses.kernel_sequences import JOINT
from perfnb.charts.bars import time_bars
from perfnb.charts.theme import drawable

_KINDS: Final = {"compute": "computing", "communication": "communication", "copy": "copying", "memset": "copying"}
_RETURN_TYPE: Final = re.compile(r"^(?:void|std::\w+)\s+(?=\S)")
_NAMESPACES: Final = re.compile(r"^(?:\(anonymous namespace\)::|[A-Za-z_]\w*::)+(?=[A-Za-z_])")
_ARGUMENTS: Final = re.compile(r"(?<=.)[<(].*$", re.DOTALL)


def kernels_chart(kernels: pd.DataFrame) -> alt.LayerChart:
    """Bars of the kernels with the most time.

    Parameters
    ----------
    kernels
        One row per kernel: kind, name, total_us, share; from `perfnb.analyses.largest(kernel_summary(run))`.

    Returns
    -------
    altair.LayerChart
        One bar per row, in the order of the rows, coloured by kind; the tooltip has the whole name.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = pd.DataFrame(
        {
            "label": _texts([_without_namespaces(str(name)) for name in kernels["name"]]),
            "group": _texts([_KINDS.get(str(kind), "other") for kind in kernels["kind"]]),
            "time_us": kernels["total_us"].to_numpy(dtype=float),
            "share": kernels["share"].to_numpy(dtype=float),
            "whole": _texts([str(name) for name in kernels["name"]]),
        }
    )
    return time_bars(
        drawable(rows, "perfnb.analyses.largest(kernel_summary(run))"),
        title="Kernels with the most time",
        axis="total over all devices",
        subject="device time by kernel",
    )


def operators_chart(operators: pd.DataFrame) -> alt.LayerChart:
    """Bars of the operators that launched the most device time.

    Parameters
    ----------
    operators
        One row per operator: operator, kernel_us, share; from `perfnb.analyses.largest_operators(operator_kernels(run))`.

    Returns
    -------
    altair.LayerChart
        One bar per row, in the order of the rows.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = _shares(operators["operator"], operators["kernel_us"], operators["share"])
    return time_bars(
        drawable(rows, "perfnb.analyses.largest_operators(operator_kernels(run))"),
        title="Operators that launched the most device time",
        axis="device time of all ranks",
        subject="device time by operator",
    )


def annotation_chart(annotations: pd.DataFrame) -> alt.LayerChart:
    """Bars of the device time that each annotation launched itself, without that of annotations inside it.

    Parameters
    ----------
    annotations
        One row per annotation: annotation, own_kernel_us, own_share; from
        `perfnb.analyses.largest_annotations(annotation_device_time(run))`.

    Returns
    -------
    altair.LayerChart
        One bar per row, in the order of the rows.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = _shares(annotations["annotation"], annotations["own_kernel_us"], annotations["own_share"])
    return time_bars(
        drawable(rows, "perfnb.analyses.largest_annotations(annotation_device_time(run))"),
        title="Device time by the innermost annotation around its launch",
        axis="device time of all ranks",
        subject="device time by annotation",
    )


def sequences_chart(sequences: pd.DataFrame) -> alt.LayerChart:
    """Bars of the kernel sequences with the most time, with how often each occurs.

    Parameters
    ----------
    sequences
        One row per sequence: length, sequence, occurrences, total_us; from
        `perfnb.analyses.largest_sequences(kernel_sequences(run))`.

    Returns
    -------
    altair.LayerChart
        One bar per row, in the order of the rows; labels have the names without namespaces and arguments, repeated ones once
        with their number; the tooltip has the whole names.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    names = [str(name).split(JOINT) for name in sequences["sequence"]]
    rows = pd.DataFrame(
        {
            "label": _texts([JOINT.join(_repeats(name)) for name in names]),
            "group": _texts(["other"] * len(names)),
            "time_us": sequences["total_us"].to_numpy(dtype=float),
            "value": _texts([f"{text.count(int(number), 'time')}" for number in sequences["occurrences"]]),
            "whole": _texts([str(name) for name in sequences["sequence"]]),
        }
    )
    return time_bars(
        drawable(rows, "perfnb.analyses.largest_sequences(kernel_sequences(run))"),
        title="Kernels that follow one another",
        axis="total over all occurrences",
        subject="time of kernel sequences",
        subtitle="occurrences may overlap: times do not add up",
    )


def _without_namespaces(name: str) -> str:
    """A C++ name without what kernels have in common at their start, so that a label's first letters tell them apart.

    Examples
    --------
    >>> _without_namespaces("void at::native::reduce_kernel<512, 1>(float*)")
    'reduce_kernel<512, 1>(float*)'
    """
    return _NAMESPACES.sub("", _RETURN_TYPE.sub("", name))


def _repeats(names: list[str]) -> list[str]:
    """Short names of a sequence, neighbours that are equal as one.

    Examples
    --------
    >>> _repeats(["void ns::add<float>(float*)", "void ns::add<int>(int*)", "gemm"])
    ['add x 2', 'gemm']
    """
    runs = [(name, len(list(same))) for name, same in groupby(_ARGUMENTS.sub("", _without_namespaces(each)) for each in names)]
    return [name if number == 1 else f"{name} x {number}" for name, number in runs]


def _shares(label: pd.Series, time_us: pd.Series, share: pd.Series) -> pd.DataFrame:
    """Rows of bars with shares."""
    return pd.DataFrame(
        {
            "label": _texts(["-" if pd.isna(each) else str(each) for each in label]),
            "group": _texts(["other"] * len(label)),  # computing, communication and copies together
            "time_us": time_us.to_numpy(dtype=float),
            "share": share.to_numpy(dtype=float),
        }
    )


def _texts(values: list[str]) -> pd.Series:
    return pd.Series(values, dtype=object)
