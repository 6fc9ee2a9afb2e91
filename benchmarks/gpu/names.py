"""What is written for others names neither the machine nor a folder of it."""

from __future__ import annotations

import re
from typing import Final

_PATH: Final = re.compile(r"(?<![\w.])/(?:work|farm|root|home|tmp|opt|usr|var|mnt)/(?:[^\s\"'\\/:,]+/)*")


def without_names(text: str) -> str:
    """A trace without the host's name, and with paths (its own, those of compiled kernels) cut to the names of their files.

    Examples
    --------
    >>> without_names('{"host_name": "box", "kernel_file": "/tmp/a/b.py"}')
    '{"host_name": "", "kernel_file": "b.py"}'
    """
    text = re.sub(r'("traceName": ")[^"]*?([^"/]*")', r"\1\2", text)
    text = re.sub(r'("host_name": ")[^"]*"', r'\1"', text)
    return without_paths(text)


def without_paths(text: str) -> str:
    """A text in which paths of the machine are cut to the names of their files."""
    return _PATH.sub("", text)
