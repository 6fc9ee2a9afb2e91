"""Magics that do something with a run: open the training panel, apply and undo a change, compare two runs, write a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, magics_class

from perfnb.errors import PerfnbError
from perfnb.magics.applied import Applied
from perfnb.magics.chosen import Chosen, chosen
from perfnb.magics.explained import argument, explained, given
from perfnb.magics.names import Names, unquoted
from perfnb.magics.watching import Watching

if TYPE_CHECKING:
    from perfnb.document import Bundle
    from perfnb.panels import ComparePanel, TrainingPanel

_CONFIG: Final[Any] = argument("--config", metavar="NAME", help="a variable or a file that holds the config")
_RUN: Final[Any] = argument("--run", metavar="NAME_OR_PATH", help="a variable or a path; the last watched cell by default")


@magics_class
class ActionMagics(Magics):
    """The magics that act.

    Parameters
    ----------
    shell
        The running IPython.
    watching
        What the last watched cell came to.
    """

    def __init__(self, shell: InteractiveShell, watching: Watching) -> None:
        super().__init__(shell)
        self._watching = watching
        self.applied = Applied()

    @property
    def _names(self) -> Names:
        return Names(cast("InteractiveShell", self.shell).user_ns)

    @property
    def parsers(self) -> dict[str, Any]:
        """Magic to what parses its line, for completions."""
        methods: dict[str, Any] = {
            "perfnb_training": self.perfnb_training,
            "perfnb_apply": self.perfnb_apply,
            "perfnb_undo": self.perfnb_undo,
            "perfnb_compare": self.perfnb_compare,
            "perfnb_report": self.perfnb_report,
        }
        return {name: method.parser for name, method in methods.items()}

    @explained(
        argument(
            "run",
            metavar="NAME_OR_PATH",
            nargs="?",
            help="a variable that holds a Run, or the path of a run folder or a training's log; the last watched cell by default",
        ),
        _CONFIG,
        argument("--probe", metavar="NAME", help="a variable that holds a function of factors of the learning rate that probes"),
    )
    def perfnb_training(self, line: str) -> TrainingPanel:
        """Open the training panel: the losses, what is wrong with them, and what to try."""
        from perfnb.panels import training_panel  # noqa: PLC0415 - loading the extension must stay cheap

        asked = given.parse_argstring(self.perfnb_training, line)
        probe = None if asked.probe is None else self._names.function(asked.probe, "--probe")
        found = self._chosen(asked.run, asked.config, reads_logs=True)
        return _said(lambda: training_panel(found.run, found.config, probe=probe, **found.edits))  # type: ignore[no-any-return]

    @explained(
        argument("fixes", metavar="ID", nargs="+", help="name of a suggested fix, as raise_num_workers; several are one step"),
        _CONFIG,
        _RUN,
        argument("--dry-run", dest="is_dry", action="store_true", help="show the diff and change nothing"),
    )
    def perfnb_apply(self, line: str) -> Bundle:
        """Apply suggested changes to the config, and show the diff; %perfnb_undo takes them back."""
        asked = given.parse_argstring(self.perfnb_apply, line)
        found = self._chosen(asked.run, asked.config)
        return _said(lambda: self.applied.apply(found, self._names, asked.fixes, is_dry=asked.is_dry))  # type: ignore[no-any-return]

    @explained(argument("--config", metavar="NAME", help="of this config; of the one that was changed last by default"))
    def perfnb_undo(self, line: str) -> Bundle:
        """Take back what the latest %perfnb_apply did."""
        asked = given.parse_argstring(self.perfnb_undo, line)
        name = None if asked.config is None else unquoted(asked.config)
        return _said(lambda: self.applied.undo(self._names, name))  # type: ignore[no-any-return]

    @explained(
        argument("before", metavar="BEFORE", help="the run before: a variable or a path"),
        argument("after", metavar="AFTER", help="the run after"),
        argument("--configs", nargs=2, metavar=("BEFORE", "AFTER"), help="variables or files that hold the two configs"),
        argument("--prediction", metavar="NAME", help="a variable that holds the suggestion or the prediction"),
    )
    def perfnb_compare(self, line: str) -> ComparePanel:
        """Open the compare panel: what was predicted beside what was measured, and what changed inside a step."""
        from perfnb.panels import compare_panel  # noqa: PLC0415 - loading the extension must stay cheap

        asked = given.parse_argstring(self.perfnb_compare, line)
        named = asked.configs or (None, None)
        sides = [self._chosen(run, config) for run, config in zip((asked.before, asked.after), named, strict=True)]
        configs = None if not all(side.config for side in sides) else (sides[0].config, sides[1].config)
        prediction = None if asked.prediction is None else self._names.prediction(asked.prediction)
        return _said(lambda: compare_panel(sides[0].run, sides[1].run, prediction, configs=configs))  # type: ignore[no-any-return]

    @explained(
        argument("path", metavar="PATH", help="a file that ends in .html, .md or .json"),
        _RUN,
        _CONFIG,
    )
    def perfnb_report(self, line: str) -> Bundle:
        """Write a report of a run to a file: one that needs neither the notebook nor a network."""
        from perfnb.document import Line, bundle  # noqa: PLC0415 - loading the extension must stay cheap
        from perfnb.report_file import report  # noqa: PLC0415 - the same
        from perfnb.text import byte_size, name  # noqa: PLC0415 - the same

        asked = given.parse_argstring(self.perfnb_report, line)
        found = self._chosen(asked.run, asked.config)
        written = _said(lambda: report(found.run, found.config, unquoted(asked.path), diagnosis=found.diagnosis))
        return bundle([Line("report", f"{name(written)}, {byte_size(written.stat().st_size)}")])

    def fix_names(self) -> Sequence[str]:
        """Fixes that would answer what was found in the last watched cell, or all of them; for completions."""
        from perfnb.catalogue import fixes  # noqa: PLC0415 - loading the extension must stay cheap

        last = self._watching.last
        sides = () if last is None else (last.diagnosis, last.diagnosis.training)
        found = {each.detector for side in sides if side is not None for each in side.found}
        return sorted(each.name for each in fixes() if found & set(each.answers)) or sorted(each.name for each in fixes())

    def _chosen(self, run: str | None, config: str | None, *, reads_logs: bool = False) -> Chosen:
        return _said(  # type: ignore[no-any-return]
            lambda: chosen(self._names, self._watching.last, run, config, reads_logs=reads_logs)
        )


def _said(act: Callable[[], Any]) -> Any:
    """What it gives; what perfnb refuses is one line for the user."""
    try:
        return act()
    except PerfnbError as error:
        raise UsageError(str(error)) from error
