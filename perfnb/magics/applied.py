"""What %perfnb_apply changed, so that %perfnb_undo can take it back: a stack over all configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from perfnb.magics.chosen import Chosen
from perfnb.magics.names import Names

if TYPE_CHECKING:
    from perfnb.document import Bundle
    from perfnb.prediction import Change


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was applied.

    Attributes
    ----------
    name
        The variable or the file that holds the config.
    changes
        What was changed.
    """

    name: str
    changes: tuple[Change, ...]


class Applied:
    """The steps that were applied, the latest last."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def apply(self, found: Chosen, names: Names, wanted: Sequence[str], *, is_dry: bool) -> Bundle:
        """Apply fixes by name as one step.

        Parameters
        ----------
        found
            The run and its config.
        names
            The user's variables, one of which holds the config.
        wanted
            Names of suggested fixes.
        is_dry
            Whether only the diff is shown.

        Returns
        -------
        Bundle
            The diff, and what to do with the new config.

        Raises
        ------
        UsageError
            If a fix is not suggested here, or two change one knob.
        PerfnbError
            If the config was edited since, or has no place for a change.
        """
        from perfnb.apply import preview  # noqa: PLC0415 - loading the extension must stay cheap

        changes = _changes(found, wanted)
        shown = preview(changes, found.config)
        if is_dry or found.name is None:
            why = "Nothing was changed: a dry run" if is_dry else "Nothing was changed: name what holds the config with --config"
            return _bundle(why, str(shown))
        if shown.reason:
            shown.write()  # says what has no place, and what to paste
        found.edits["on_apply"](changes, names.config(found.name))
        self.steps.append(Step(found.name, changes))
        return _bundle(f"{', '.join(wanted)} applied. {found.edits['home']}", str(shown))

    def undo(self, names: Names, name: str | None) -> Bundle:
        """Take the latest step back, of one config or of all.

        Parameters
        ----------
        names
            The user's variables.
        name
            Of the config; None for the one that was changed last.

        Returns
        -------
        Bundle
            The diff.

        Raises
        ------
        UsageError
            If there is nothing to take back.
        PerfnbError
            If the config was edited since.
        """
        from perfnb.apply import config_diff  # noqa: PLC0415 - loading the extension must stay cheap
        from perfnb.wording import changed  # noqa: PLC0415 - the same

        own = [number for number, step in enumerate(self.steps) if name is None or step.name == name]
        if not own:
            whose = "" if name is None else f" of {name}"
            message = f"nothing{whose} to take back: %perfnb_apply changed nothing here"
            raise UsageError(message)
        step = self.steps[own[-1]]
        edits, before = names.edits(step.name), names.config(step.name)
        edits["on_undo"](step.changes, before)
        del self.steps[own[-1]]
        diff = config_diff(before, names.config(step.name))
        return _bundle(f"Taken back: {changed(step.changes)}. {edits['home']}", diff)


def _changes(found: Chosen, wanted: Sequence[str]) -> tuple[Change, ...]:
    from perfnb.suggest import not_applicable, suggest  # noqa: PLC0415 - loading the extension must stay cheap
    from perfnb.training.suggest import suggest_hyperparameters  # noqa: PLC0415 - the same

    known: dict[str, tuple[Change, ...]] = {
        each.fix: each.changes for each in suggest_hyperparameters(found.run, found.config) if each.changes
    }
    known |= {each.fix: each.changes for each in suggest(found.run, found.config, found.diagnosis)}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        refused = {each.fix: each.reason for each in not_applicable(found.run, found.config, found.diagnosis)}
        why = f": {refused[unknown[0]]}" if unknown[0] in refused else ""
        there = f"suggested are {', '.join(known)}" if known else "nothing is suggested for this run and config"
        message = f"{unknown[0]} is not suggested here{why}; {there}"
        raise UsageError(message)
    changes = tuple(change for name in wanted for change in known[name])
    knobs = [change.knob for change in changes]
    twice = next((knob for knob in knobs if knobs.count(knob) > 1), None)
    if twice is not None:
        message = f"two of these change {twice}: apply one of them"
        raise UsageError(message)
    return changes


def _bundle(sentence: str, diff: str) -> Bundle:
    from perfnb.document import Block, Diff, Line, bundle  # noqa: PLC0415 - loading the extension must stay cheap

    blocks: list[Block] = [Line("config", sentence.strip())]
    lines: Any = diff.removesuffix("\n").split("\n") if diff else ()
    return bundle([*blocks, Diff(tuple(lines))])
