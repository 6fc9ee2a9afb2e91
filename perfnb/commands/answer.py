"""What a command answers where its exit code says more than that it answered."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What to print, and the exit code to end with.

    Attributes
    ----------
    text
        What is printed on stdout; nothing where empty.
    exit_code
        0 where all is well; commands say in their help what others mean.
    """

    text: str
    exit_code: int = 0
