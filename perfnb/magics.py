"""%load_ext perfnb: how perfnb's values are shown, and the magics that open a panel on a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from IPython.core import magic_arguments
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from perfnb.errors import PerfnbError

if TYPE_CHECKING:
    from perfnb.panels import BottleneckPanel, WhatIfPanel
    from perfnb.prediction import Change
    from perfnb.run import Run

SHOWN: Final = (
    ("perfnb.findings", "Diagnosis"),
    ("perfnb.findings", "Finding"),
    ("perfnb.fix", "Suggestion"),
    ("perfnb.prediction", "Prediction"),
    ("perfnb.prediction", "Unknown"),
    ("perfnb.run", "Run"),
    ("perfnb.verify", "Outcome"),
)
"""Module and name of each type that has a face of its own."""

MAGICS: Final = ("perfnb_explore", "perfnb_whatif")

_Method = TypeVar("_Method", bound=Callable[..., Any])


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Show perfnb's values as cards, and add the magics: `%load_ext perfnb`.

    Parameters
    ----------
    shell
        The running IPython.
    """
    register_display(shell)
    shell.register_magics(PerfnbMagics)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take back what `%load_ext perfnb` did: `%unload_ext perfnb`.

    Parameters
    ----------
    shell
        The running IPython.
    """
    for module, name in SHOWN:
        for formatter in _formatters(shell):
            formatter.pop(f"{module}.{name}", None)
    for magic in MAGICS:
        shell.magics_manager.magics["line"].pop(magic, None)


def register_display(shell: InteractiveShell) -> None:
    """Show Diagnosis, Finding, Suggestion, Prediction, Unknown, Run and Outcome by their faces, alone and within a list.

    Types are named, not imported: nothing is loaded before the first value is shown.

    Parameters
    ----------
    shell
        The running IPython.
    """
    plain, bundles = _formatters(shell)
    for module, name in SHOWN:
        plain.for_type_by_name(module, name, _pretty)
        bundles.for_type_by_name(module, name, _bundle)


def _formatters(shell: InteractiveShell) -> tuple[Any, Any]:
    """Those of plain text, which also shows what stands in a list, and of whole bundles."""
    formatter: Any = shell.display_formatter
    return formatter.formatters["text/plain"], formatter.mimebundle_formatter


def _line_magic_on_a_run(method: _Method) -> _Method:
    """A line magic with the arguments of those that open a panel."""
    given: Any = magic_arguments  # IPython's decorators have no types
    run = given.argument(
        "run", metavar="NAME_OR_PATH", help="a variable that holds a Run, or the path of a trace or of a folder of traces"
    )
    config = given.argument("--config", metavar="NAME", help="a variable that holds the config; Apply puts the new config there")
    marked: _Method = given.magic_arguments()(run(config(line_magic(method))))
    return marked


@magics_class
class PerfnbMagics(Magics):
    """The magics of perfnb."""

    @_line_magic_on_a_run
    def perfnb_explore(self, line: str) -> BottleneckPanel:
        """Open the bottleneck panel: what was found in a run, with its evidence and the changes that answer it."""
        from perfnb.panels import bottleneck_panel  # noqa: PLC0415 - loading the extension must stay cheap

        return self._opened(self.perfnb_explore, line, bottleneck_panel)  # type: ignore[no-any-return]

    @_line_magic_on_a_run
    def perfnb_whatif(self, line: str) -> WhatIfPanel:
        """Open the what-if panel: a control per knob of the config, and what the present setting is predicted to do."""
        from perfnb.panels import whatif_panel  # noqa: PLC0415 - loading the extension must stay cheap

        return self._opened(self.perfnb_whatif, line, whatif_panel)  # type: ignore[no-any-return]

    @property
    def _names(self) -> dict[str, Any]:
        """The user's variables."""
        names: dict[str, Any] = cast("InteractiveShell", self.shell).user_ns
        return names

    def _opened(self, magic: Callable[..., Any], line: str, panel: Callable[..., Any]) -> Any:
        arguments = cast("Any", magic_arguments).parse_argstring(magic, line)
        try:
            name = _unquoted(arguments.run)
            run = self._run(name)
            if arguments.config is None:
                return panel(run, self._config_beside(name, run))
            config = self._config(arguments.config)
            return panel(run, config, **self._edits(arguments.config))
        except PerfnbError as error:
            raise UsageError(str(error)) from error

    def _run(self, name: str) -> Run:
        from perfnb.read.kineto import read_kineto  # noqa: PLC0415 - loading the extension must stay cheap
        from perfnb.run import Run  # noqa: PLC0415 - the same

        if name in self._names:
            value = self._names[name]
            if isinstance(value, Run):
                return value
            message = f"{name} holds a {type(value).__name__}, not a Run: read one with perfnb.read_trace(path)"
            raise UsageError(message)
        if not Path(name).expanduser().exists():
            message = f"no variable named {name} holds a Run, and there is no file or folder of that name"
            raise UsageError(message)
        return read_kineto(Path(name).expanduser())

    def _config_beside(self, name: str, run: Run) -> Mapping[str, Any]:
        """The config of the run, or for a path that of the config.json beside it, as on the command line."""
        from perfnb.config.json_file import config_beside  # noqa: PLC0415 - loading the extension must stay cheap

        return run.config if name in self._names else config_beside(Path(name).expanduser(), run.config)

    def _config(self, name: str) -> Mapping[str, Any]:
        value = self._names.get(name)
        if not isinstance(value, Mapping):
            there = f"{name} holds a {type(value).__name__}" if name in self._names else f"there is no variable {name}"
            message = f"{there}: --config takes the name of a variable that holds a mapping of knobs to values"
            raise UsageError(message)
        return value

    def _edits(self, name: str) -> dict[str, Any]:
        """Apply and undo that put the new config into the variable; a config that was edited since raises StaleChange."""
        from perfnb.apply import apply, undo  # noqa: PLC0415 - loading the extension must stay cheap

        def put(edit: Callable[..., Mapping[str, Any]]) -> Callable[..., Mapping[str, Any]]:
            def edited(changes: Sequence[Change], _: Mapping[str, Any]) -> Mapping[str, Any]:
                config = edit(changes, self._config(name))
                self._names[name] = config
                return config

            return edited

        return {"on_apply": put(apply), "on_undo": put(undo), "home": f"{name} is a new object: run the cells that use it again"}


def _unquoted(word: str) -> str:
    """A word of a magic's line without the quotes round it: IPython splits at blanks, but leaves them."""
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word


def _bundle(value: Any) -> dict[str, str]:
    from perfnb.report import face  # noqa: PLC0415 - loading the extension must stay cheap

    return face(value).mimebundle()


def _pretty(value: Any, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG001 - the signature that IPython calls
    from perfnb.report import face  # noqa: PLC0415 - loading the extension must stay cheap

    printer.text(face(value).plain)
