"""One check of perfnb's own: a function that says what it saw, or raises why it could not, and what to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from perfnb import text
from perfnb.errors import PerfnbError

DEFECT: Final = "a defect of perfnb or of this installation: install it anew, and report this line if it stays"
_LONGEST: Final = 400

State = Literal["passed", "failed", "skipped"]


class NotTested(PerfnbError):  # noqa: N818 - an answer, not a failure
    """A check cannot be made here: `advice` says what would make it possible, empty where nothing needs doing."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason, advice)
        self.reason, self.advice = reason, advice

    def __str__(self) -> str:
        """The reason."""
        return self.reason


class NotAsExpected(PerfnbError):  # noqa: N818 - as above
    """A check found something else than it must: `advice` says what to do."""

    def __init__(self, found: str, advice: str = "") -> None:
        super().__init__(found, advice)
        self.found, self.advice = found, advice

    def __str__(self) -> str:
        """What was found."""
        return self.found


@dataclass(frozen=True, slots=True)
class Check:
    """What came of one check.

    Attributes
    ----------
    group, name
        What was checked.
    state
        "passed", "failed" or "skipped".
    detail
        What was seen, or why it failed or could not be tested.
    advice
        What to install or change; empty where nothing needs doing.
    seconds
        How long it took.
    """

    group: str
    name: str
    state: State
    detail: str
    advice: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Planned:
    """A check to be made: `look` gives what it saw in words."""

    group: str
    name: str
    look: Callable[[], str]


def made(planned: Planned) -> Check:
    """What comes of a check; whatever it raises is an answer, and no other check suffers from it.

    Examples
    --------
    >>> check = made(Planned("numbers", "division", lambda: f"{1 / 0}"))
    >>> check.state, check.detail
    ('failed', 'ZeroDivisionError: division by zero')
    """
    begin = time.perf_counter()
    state: State = "passed"
    advice = ""
    try:
        detail = planned.look()
    except NotTested as reason:
        state, detail, advice = "skipped", reason.reason, reason.advice
    except NotAsExpected as found:
        state, detail, advice = "failed", found.found, found.advice
    except Exception as error:  # noqa: BLE001 - any failure of what is checked is what the check is for
        state, detail = "failed", f"{type(error).__name__}: {error}"
        advice = DEFECT
    return Check(
        planned.group,
        planned.name,
        state,
        text.clean(detail, _LONGEST),
        text.clean(advice, _LONGEST),
        time.perf_counter() - begin,
    )
