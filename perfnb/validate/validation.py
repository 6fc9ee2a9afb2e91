"""validate(): every check, one after another, and what they come to."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from tqdm.auto import tqdm

import perfnb
from perfnb import text
from perfnb.document import Block, Bundle, Line, Section, Table, Verdict, bundle
from perfnb.validate import examples, functions, parts, speed
from perfnb.validate.check import Check, Planned, made
from perfnb.validate.live import Live

SCHEMA: Final = 1
"""Version of the JSON: rises when a key goes or changes its meaning."""

_SIGNS: Final = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}

Mode = Literal["quick", "full"]


@dataclass(frozen=True, slots=True)
class Validation:
    """What the checks came to.

    Attributes
    ----------
    mode
        "quick" or "full".
    checks
        Every check, in the order in which they were made.
    seconds
        How long all of them took.
    """

    mode: Mode
    checks: tuple[Check, ...]
    seconds: float

    @property
    def success_rate(self) -> float | None:
        """Share of the checks that passed among those that could be made; None where none could."""
        passed, failed = self.count("passed"), self.count("failed")
        return passed / (passed + failed) if passed + failed else None

    @property
    def exit_code(self) -> int:
        """0 where no check failed, 1 where one did; what was skipped fails nothing."""
        return int(self.count("failed") > 0)

    def count(self, state: str) -> int:
        """How many checks came to a state."""
        return sum(check.state == state for check in self.checks)

    @property
    def advice(self) -> tuple[str, ...]:
        """What to install or change, failures first, each once."""
        ordered = sorted(self.checks, key=lambda check: check.state != "failed")
        return tuple(
            dict.fromkeys(f"{check.name}: {check.advice}" for check in ordered if check.advice and check.state != "passed")
        )

    def blocks(self) -> list[Block]:
        """The validation as blocks of a document."""
        rate = self.success_rate
        words = f"{self.count('passed')} passed, {self.count('failed')} failed, {self.count('skipped')} skipped"
        took = f"{self.mode}, {self.seconds:.0f} s"
        system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
        blocks: list[Block] = [
            Verdict("x" if self.exit_code else "ok", f"{words}; success rate {text.share(rate)}", took),
            Line("on", f"perfnb {perfnb.__version__}, {system}"),
        ]
        if self.advice:
            blocks.append(Section("What to install or change", tuple(Line("", each) for each in self.advice), folded=False))
        for group in dict.fromkeys(check.group for check in self.checks):
            own = [check for check in self.checks if check.group == group]
            rows = tuple((_SIGNS[check.state], check.name, check.detail, f"{check.seconds:.1f} s") for check in own)
            shown = Table("", ("", "check", "what was seen", "took"), rows, frozenset({3}))
            is_fine = all(check.state == "passed" for check in own)
            blocks.append(Section(f"{group} ({len(own)})", (shown,), folded=is_fine))
        return blocks

    def bundle(self) -> Bundle:
        """Its HTML, Markdown and plain text."""
        return bundle(self.blocks())

    def as_dict(self) -> dict[str, Any]:
        """The validation as plain dicts and lists."""
        return {
            "schema": SCHEMA,
            "kind": "perfnb validation",
            "perfnb": perfnb.__version__,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "mode": self.mode,
            "seconds": self.seconds,
            "passed": self.count("passed"),
            "failed": self.count("failed"),
            "skipped": self.count("skipped"),
            "success_rate": self.success_rate,
            "advice": list(self.advice),
            "checks": [
                {name: getattr(check, name) for name in ("group", "name", "state", "detail", "advice", "seconds")}
                for check in self.checks
            ],
        }

    def __str__(self) -> str:
        """The plain text."""
        return self.bundle().plain


def validate(mode: Mode = "quick", progress: Callable[[str], None] | None = None) -> Validation:
    """What perfnb can do on this machine, tried out; a progress bar on a terminal says what is tried.

    Parameters
    ----------
    mode
        "quick" takes up to a minute on a quiet machine; "full" trains longer, adds a control, and looks at every detector's
        examples.
    progress
        Called with the name of each check before it is made.

    Returns
    -------
    Validation
        Every check: passed, failed or skipped with the reason.
    """
    begin = time.perf_counter()
    live = Live(mode)
    try:
        planned: list[Planned] = [*parts.planned(), *functions.planned(), *live.planned(), *speed.planned()]
        planned += examples.planned() if mode == "full" else []
        checks = []
        with tqdm(planned, desc="perfnb validate", unit="check", leave=False, disable=None) as bar:
            for each in bar:
                bar.set_postfix_str(each.name[:40])
                if progress is not None:
                    progress(each.name)
                checks.append(made(each))
    finally:
        live.close()
    return Validation(mode, tuple(checks), time.perf_counter() - begin)
