"""The difference between two configs as a block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perfnb import text
from perfnb.apply import config_diff
from perfnb.document import Diff
from perfnb.panels.base import LONGEST_LINE


def diff_block(before: Mapping[str, Any], after: Mapping[str, Any]) -> Diff:
    """Unified diff of two configs; "no change" where they are equal.

    Examples
    --------
    >>> diff_block({"num_workers": 0}, {"num_workers": 4}).lines[-3:-1]
    ('-  "num_workers": 0', '+  "num_workers": 4')
    """
    return shortened(config_diff(before, after).splitlines())


def shortened(lines: Iterable[str]) -> Diff:
    """Lines of a diff, each without the middle of a very long value."""
    return Diff(tuple(text.clean(line, LONGEST_LINE) for line in lines))
