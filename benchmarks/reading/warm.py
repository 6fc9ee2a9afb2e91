"""A first task for workers: what they need is imported before they are measured."""

from __future__ import annotations

import time
from pathlib import Path

from perfnb.read.kineto import read_kineto

_LONG_ENOUGH_S = 0.5


def read_once(path: Path) -> int:
    """Read a trace and keep nothing; lasts long enough that every free worker is given one."""
    steps = len(read_kineto(path).steps)
    time.sleep(_LONG_ENOUGH_S)
    return steps
