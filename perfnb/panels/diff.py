"""The difference between two configs as a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.apply import config_diff
from perfnb.document import Diff


def diff_block(before: Mapping[str, Any], after: Mapping[str, Any]) -> Diff:
    """Unified diff of two configs; "no change" where they are equal.

    Examples
    --------
    >>> diff_block({"num_workers": 0}, {"num_workers": 4}).lines[-3:-1]
    ('-  "num_workers": 0', '+  "num_workers": 4')
    """
    return Diff(tuple(config_diff(before, after).splitlines()))
