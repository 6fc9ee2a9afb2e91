"""Tables and figures in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A table in Markdown; bars in cells are escaped.

    Examples
    --------
    >>> print(table(("a", "b"), [("1", "x|y")]))
    | a | b |
    | --- | --- |
    | 1 | x\|y |
    <BLANKLINE>
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def percent(share: Any) -> str:
    """A share in percent; a dash where there is none.

    Examples
    --------
    >>> percent(0.0312), percent(float("nan"))
    ('3.1 %', '-')
    """
    return "-" if pd.isna(share) else f"{100 * share:.1f} %"


def signed(share: Any) -> str:
    """A share in percent with its sign.

    Examples
    --------
    >>> signed(0.0312), signed(-0.2)
    ('+3.1 %', '-20.0 %')
    """
    return "-" if pd.isna(share) else f"{100 * share:+.1f} %"
