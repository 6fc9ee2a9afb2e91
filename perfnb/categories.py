"""Tests of text on categorical columns, made once per distinct text: a trace has few names and many rows."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


def per_text(column: pd.Series, test: Callable[[str], object]) -> Bools:
    """Whether the text of each row passes a test; False where there is none.

    Examples
    --------
    >>> per_text(pd.Series(["kernel", None], dtype="category"), "kernel".__eq__)
    array([ True, False])
    """
    text = column.astype("category")  # a no-op on tables of a run
    codes, labels = text.cat.codes.to_numpy(), text.cat.categories
    used = np.flatnonzero(np.bincount(codes + 1, minlength=len(labels) + 1)[1:])
    found = np.zeros(len(labels) + 1, dtype=bool)  # the last slot stands for a missing text
    found[used] = [bool(test(label)) for label in labels[used]]
    return found[codes]


def matching(column: pd.Series, pattern: str | re.Pattern[str]) -> Bools:
    """Whether the text of each row holds a regular expression; False where there is none.

    Examples
    --------
    >>> matching(pd.Series(["aten::add", None, "add_"], dtype="category"), "^add")
    array([False, False,  True])
    """
    return per_text(column, re.compile(pattern).search)
