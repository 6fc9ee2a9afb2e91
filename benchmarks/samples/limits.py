"""How large the recorded samples may be, so that the repository stays small."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Final

APART: Final = MappingProxyType({"detection": 10_000_000, "prediction": 2_600_000})
"""Bytes of folders that hold hundreds of runs each."""

REST: Final = 5_000_000
"""Bytes of everything else together."""


def sizes(samples: Path) -> dict[str, int]:
    """Bytes of each folder of `APART`, and under "rest" of everything else."""
    files = {path: path.stat().st_size for path in samples.rglob("*") if path.is_file()}
    apart = {name: sum(size for path, size in files.items() if path.is_relative_to(samples / name)) for name in APART}
    return {**apart, "rest": sum(files.values()) - sum(apart.values())}


def exceeded(samples: Path) -> list[str]:
    """What is larger than it may be, one sentence each.

    Parameters
    ----------
    samples
        The folder of the samples.
    """
    allowed = {**APART, "rest": REST}
    return [f"{name}: {size:,} bytes, {allowed[name]:,} allowed" for name, size in sizes(samples).items() if size > allowed[name]]
