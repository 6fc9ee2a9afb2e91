"""Where the recorded samples lie that a wheel and the repository both hold."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import perfnb
from perfnb.run import Run
from perfnb.tutorial import SAMPLES
from perfnb.validate.check import NotTested


def sample(name: str) -> Path:
    """Folder of a recorded sample.

    Raises
    ------
    NotTested
        If this installation holds no samples.

    Examples
    --------
    >>> sample("slow_loader").name
    'slow_loader'
    """
    package = Path(perfnb.__file__).resolve().parent
    for root in (package / "tutorial_files", package.parent):
        for folder in SAMPLES:
            if folder.name == name and (root / folder).is_dir():
                return root / folder
    reason = f"the recorded sample {name} is not part of this installation"
    raise NotTested(reason, "install perfnb from its wheel or its repository")


@cache
def run_of_sample(name: str) -> Run:
    """The run of a recorded sample, read once."""
    return perfnb.read_trace(sample(name))
