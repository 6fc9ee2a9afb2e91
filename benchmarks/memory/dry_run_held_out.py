"""Families that were written after the dry run was finished: nothing in perfnb was changed for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.memory.dry_run_families import Family

HELD_OUT: Final[Mapping[str, Family]] = {}
