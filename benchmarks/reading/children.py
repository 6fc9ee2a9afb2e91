"""Fresh child processes that each make one measurement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
CORPUS: Final = Path(os.environ.get("PERFNB_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
MARK: Final = "measured: "
ABSENT: Final = "absent: "
_SHOWN: Final = 300


class ChildError(Exception):
    """A child failed or ran out of time: the message is its last words."""


def measured(
    program: str, words: Sequence[str], *, python: str = sys.executable, timeout_s: float = 1800.0
) -> dict[str, Any] | str:
    """What a child measured, or, as text, why it cannot measure.

    Parameters
    ----------
    program
        Name of a file beside this one.
    words
        Its arguments.
    python
        The interpreter: this one sees the repository, another one only what is installed in it.
    timeout_s
        After that the child is ended.

    Raises
    ------
    ChildError
        If the child fails, prints no measurement or runs out of time.
    """
    environment = dict(os.environ)
    if python == sys.executable:
        environment["PYTHONPATH"] = str(REPOSITORY)
    else:
        environment.pop("PYTHONPATH", None)
    command = [python, str(Path(__file__).parent / program), *words]
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter that the caller names, on a file of this package
            command, capture_output=True, encoding="utf-8", errors="replace", env=environment, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        message = f"ran longer than {timeout_s:.0f} s"
        raise ChildError(message) from error
    for line in done.stdout.splitlines():
        if line.startswith(ABSENT):
            return line.removeprefix(ABSENT)
        if line.startswith(MARK):
            answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return answer
    words_left = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["no output"]
    message = f"exit status {done.returncode}: {words_left[-1][:_SHOWN]}"
    raise ChildError(message)
