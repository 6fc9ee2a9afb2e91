"""Rows of a DataFrame with what its index says: named levels, and dates, are columns."""

from __future__ import annotations

import pandas as pd

from perfnb.read.metric_meaning import meaning


def from_frame(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    """The rows of a frame, numbered from 0, with columns for what stood in its index.

    Levels of the index with a name that no column has are columns; an index of dates without a name is the timestamp where no
    column is one; any other only numbers the rows. Levels of column names are joined by "/".

    Parameters
    ----------
    frame
        The frame.
    label
        Name of the input, which names may depend on.

    Examples
    --------
    >>> frame = pd.DataFrame({"loss": [2.5, 2.4]}, index=pd.Index([10, 20], name="step"))
    >>> from_frame(frame, "training_metrics").to_dict("list")
    {'step': [10, 20], 'loss': [2.5, 2.4]}
    """
    names = [_joined(name) for name in frame.columns]
    levels: dict[str, pd.Index] = {}
    for place, name in enumerate(frame.index.names):
        values = frame.index.get_level_values(place)
        if name is not None and str(name) not in names:
            levels.setdefault(str(name), values)
        elif name is None and isinstance(values, pd.DatetimeIndex) and not any(_is_moment(each, label) for each in names):
            levels.setdefault("timestamp", values)
    rows = frame.reset_index(drop=True).set_axis(names, axis=1)
    if not levels:
        return rows
    return pd.concat([pd.DataFrame({name: values.to_series(index=rows.index) for name, values in levels.items()}), rows], axis=1)


def _joined(name: object) -> str:
    """A column's name, its levels joined; some are empty, as `reset_index` leaves them."""
    return "/".join(text for level in name if (text := str(level))) if isinstance(name, tuple) else str(name)


def _is_moment(name: str, label: str) -> bool:
    found = meaning(name, label)
    return found is not None and found.quantity.name == "timestamp"
