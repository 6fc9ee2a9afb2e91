"""Completions behind perfnb's magics: options, the user's runs and configs, the fixes that would answer what was found."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell

_RUNS: Final = frozenset({"run", "before", "after", "--run"})
_CONFIGS: Final = frozenset({"--config", "--configs"})
_REPORTS: Final = ("perfnb_report.html", "perfnb_report.md", "perfnb_report.json")


class Completer:
    """Answers what may stand at the cursor behind each magic.

    Parameters
    ----------
    shell
        The running IPython.
    parsers
        Magic to what parses its line.
    fix_names
        Fixes to offer to %perfnb_apply.
    """

    def __init__(self, shell: InteractiveShell, parsers: Mapping[str, Any], fix_names: Callable[[], Sequence[str]]) -> None:
        self._shell, self._parsers, self._fix_names = shell, dict(parsers), fix_names
        self._keys = [*(f"%{name}" for name in self._parsers), "%%perfnb"]

    def register(self) -> None:
        """Have IPython ask here."""
        shell: Any = self._shell
        for key in self._keys:
            shell.set_hook("complete_command", self.complete, str_key=key)

    def forget(self) -> None:
        """Take that back."""
        shell: Any = self._shell
        hooks = shell.strdispatchers.get("complete_command")
        for key in self._keys if hooks is not None else ():
            hooks.strs.pop(key, None)

    def complete(self, _: Any, event: Any) -> list[str]:
        """Words that may stand at the cursor; IPython keeps those that begin as the user did.

        Parameters
        ----------
        event
            `line`, `command` and `symbol` of the cursor.
        """
        parser = self._parsers.get(str(event.command).lstrip("%"))
        if parser is None:
            return []
        words = str(event.text_until_cursor if hasattr(event, "text_until_cursor") else event.line).split()[1:]
        done = words[:-1] if words and words[-1] == event.symbol else words
        last = _option_under_way(parser, done)
        if last is not None:
            return self._values(last.option_strings[-1], last)
        return [*_options(parser, done), *(word for each in _positionals(parser) for word in self._values(each.dest, each))]

    def _values(self, name: str, action: argparse.Action) -> list[str]:
        if action.choices is not None:
            return [str(each) for each in action.choices]
        if name in _RUNS:
            return self._named(_is_run)
        if name in _CONFIGS:
            return self._named(_is_config)
        if name == "--probe":
            return self._named(callable)
        if name == "--prediction":
            return self._named(lambda value: type(value).__name__ in ("Suggestion", "Prediction", "Unknown"))
        if name == "fixes":
            return list(self._fix_names())
        return list(_REPORTS) if name == "path" else []

    def _named(self, fits: Callable[[Any], bool]) -> list[str]:
        hidden = getattr(self._shell, "user_ns_hidden", {})
        return sorted(
            name for name, value in self._shell.user_ns.items() if name not in hidden and name[:1] != "_" and fits(value)
        )


def _option_under_way(parser: Any, done: Sequence[str]) -> argparse.Action | None:
    """The option whose value stands at the cursor."""
    known: dict[str, argparse.Action] = parser._option_string_actions  # noqa: SLF001 - argparse tells it nowhere else
    for back in (1, 2):
        action = known.get(done[-back]) if len(done) >= back else None
        takes = 0 if action is None or action.nargs == 0 else action.nargs if isinstance(action.nargs, int) else 1
        if action is not None and takes >= back:
            return action
    return None


def _options(parser: Any, done: Sequence[str]) -> list[str]:
    actions: list[argparse.Action] = parser._actions  # noqa: SLF001 - as above
    return [each.option_strings[-1] for each in actions if each.option_strings and not set(each.option_strings) & set(done)]


def _positionals(parser: Any) -> list[argparse.Action]:
    actions: list[argparse.Action] = parser._actions  # noqa: SLF001 - as above
    return [each for each in actions if not each.option_strings]


def _is_run(value: Any) -> bool:
    """Whether it is a Run, without importing what makes one."""
    return type(value).__name__ == "Run" and type(value).__module__ == "perfnb.run"


def _is_config(value: Any) -> bool:
    is_made = dataclasses.is_dataclass(value) and not isinstance(value, type) and not type(value).__module__.startswith("perfnb")
    return isinstance(value, (Mapping, argparse.Namespace)) or is_made or type(value).__name__ == "DataLoader"
