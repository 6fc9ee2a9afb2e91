"""The magics of perfnb: each parses its line and calls one thing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
    output_can_be_silenced,
)

from perfnb.errors import PerfnbError
from perfnb.magics.chosen import chosen
from perfnb.magics.explained import argument, explained, given
from perfnb.magics.machine import SMALLEST_INTERVAL_S, MachineWatch
from perfnb.magics.names import Names, config_name, unquoted, variable
from perfnb.magics.option_words import split_options
from perfnb.magics.statement import run_statement
from perfnb.magics.watch import TRACED_STEPS, Options
from perfnb.magics.watching import Watching, say

if TYPE_CHECKING:
    from perfnb.document import Bundle
    from perfnb.panels import BottleneckPanel, MonitorPanel, WhatIfPanel


def _line_or_cell(method: Any) -> Any:
    """A magic of a line, whose `{...}` are Python's own, or of a cell."""
    return no_var_expand(needs_local_scope(line_cell_magic(output_can_be_silenced(method))))


_CONFIG: Any = argument(
    "--config", metavar="NAME", help="a variable or a file that holds the config; Apply puts the new config there"
)
_RUN: Any = argument(
    "run",
    metavar="NAME_OR_PATH",
    nargs="?",
    help="a variable that holds a Run, or the path of a trace, of a folder of traces or of a run folder; the last watched cell "
    "by default",
)


@magics_class
class PerfnbMagics(Magics):
    """The magics of perfnb.

    Attributes
    ----------
    watching
        The watch of cells.
    machine
        The sampler between them.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.watching = Watching(shell)
        self.machine = MachineWatch()

    @property
    def _ipython(self) -> InteractiveShell:
        return cast("InteractiveShell", self.shell)

    @property
    def _names(self) -> Names:
        return Names(self._ipython.user_ns)

    @explained(
        argument("-o", dest="variable", metavar="NAME", help="a variable for the Diagnosis"),
        argument("-q", dest="is_quiet", action="store_true", help="show nothing"),
        _CONFIG,
        argument(
            "--trace",
            type=int,
            metavar="N",
            help=f"steps to record under torch.profiler too; {TRACED_STEPS} where CUDA is in use, else 0",
        ),
        argument("--save", dest="folder", metavar="FOLDER", help="a folder to record the run into, for perfnb.read_run"),
        argument("--panel", dest="shows_panel", action="store_true", help="show the bottleneck panel below the card"),
        argument("statement", nargs="*", metavar="STATEMENT", help="what to run and watch; not over a cell"),
        kind=_line_or_cell,
    )
    def perfnb(self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Watch the training of a cell: what holds it up, and what to change.

        Over a cell, `%%perfnb` watches it, whatever else is in it, and shows the verdict below its output. `%perfnb STATEMENT`
        does that for one statement, and `%perfnb` alone shows the last verdict again.
        """
        if cell is not None:  # called by name: as a line of a cell it never comes here
            shell: Any = self.shell
            return shell.run_cell(f"%%perfnb {line}\n{cell}")
        options, statement = split_options(self._parser, line)
        asked = self._options(options)
        if not statement:
            return self._last_card()
        if not self.watching.begin(asked):
            return run_statement(self._ipython, statement, local_ns)
        try:
            value = run_statement(self._ipython, statement, local_ns)
        except BaseException as error:
            with contextlib.suppress(Exception):  # nothing of ours may take the place of what the statement raised
                self.watching.stop(error)  # the card comes at the cell's end, after the traceback
            raise
        self.watching.end()
        return value

    @line_magic
    def _perfnb_begin(self, line: str) -> None:
        """Stand in for the line %%perfnb at the top of a cell; see %perfnb?."""
        options, rest = split_options(self._parser, line)
        asked = self._options(options)
        if rest:
            message = f"%%perfnb takes options only: {rest!r} goes on the lines below it, or behind %perfnb"
            raise UsageError(message)
        if self.watching.cell is not None:  # silent cells have no end that IPython tells of
            self.watching.begin(asked, may_repeat=True)

    @explained(
        argument(
            "state", nargs="?", choices=("on", "off", "status"), help="on, off, or status in words; by default the live panel"
        ),
        argument(
            "--interval",
            type=float,
            default=1.0,
            metavar="S",
            help=f"seconds between two samples, {SMALLEST_INTERVAL_S} or more",
        ),
        argument("--folder", metavar="FOLDER", help="a run folder that this or another process records into, to watch"),
    )
    def perfnb_watch(self, line: str) -> Bundle | MonitorPanel | None:
        """Watch the machine and what trains on it: `on` samples it in the background for all later cells.

        Alone it opens the live panel: on what records in this kernel, or with `--folder` in another process.
        """
        asked = given.parse_argstring(self.perfnb_watch, line)
        if not asked.interval >= SMALLEST_INTERVAL_S:
            message = f"--interval takes {SMALLEST_INTERVAL_S} seconds or more, not {asked.interval:g}"
            raise UsageError(message)
        if asked.folder is not None and asked.state is not None:
            message = f"--folder opens the live panel: leave out {asked.state!r}, which is about this kernel's own sampler"
            raise UsageError(message)
        if asked.state is None:
            from perfnb.panels import monitor_panel  # noqa: PLC0415 - loading the extension must stay cheap

            try:
                return monitor_panel(None if asked.folder is None else unquoted(asked.folder), interval_s=asked.interval)
            except PerfnbError as error:
                raise UsageError(str(error)) from error
        if asked.state == "status":
            return self.machine.status()
        if asked.state == "on":
            self.machine.on(asked.interval)
        else:
            self.machine.off()
        return None

    @line_magic
    def perfnb_doctor(self, line: str) -> Bundle:
        """What this machine offers to perfnb, each with its remedy where something is missing."""
        from perfnb.doctor import machine_bundle  # noqa: PLC0415 - loading the extension must stay cheap

        if line.strip():
            message = "%perfnb_doctor takes no arguments"
            raise UsageError(message)
        return machine_bundle()

    @explained(_RUN, _CONFIG)
    def perfnb_explore(self, line: str) -> BottleneckPanel:
        """Open the bottleneck panel: what was found in a run, with its evidence and the changes that answer it."""
        from perfnb.panels import bottleneck_panel  # noqa: PLC0415 - loading the extension must stay cheap

        return self._opened(self.perfnb_explore, line, bottleneck_panel)  # type: ignore[no-any-return]

    @explained(_RUN, _CONFIG)
    def perfnb_whatif(self, line: str) -> WhatIfPanel:
        """Open the what-if panel: a control per knob of the config, and what the present setting is predicted to do."""
        from perfnb.panels import whatif_panel  # noqa: PLC0415 - loading the extension must stay cheap

        return self._opened(self.perfnb_whatif, line, whatif_panel)  # type: ignore[no-any-return]

    def after_cell(self, result: ExecutionResult | None) -> None:
        """IPython's event `post_run_cell`.

        Parameters
        ----------
        result
            What the cell came to.
        """
        self.watching.after_cell(result)
        if not self.machine.is_on:
            return
        try:
            self.machine.resume()
        except Exception as error:  # noqa: BLE001 - a defect of perfnb is one line, never the user's trouble
            say(f"perfnb can no longer sample this machine: {type(error).__name__} {error}")

    def close(self) -> None:
        """End whatever is under way, without a word."""
        self.watching.drop()
        self.machine.off()

    @property
    def parsers(self) -> dict[str, Any]:
        """Magic to what parses its line, for completions."""
        methods: dict[str, Any] = {
            "perfnb": self.perfnb,
            "perfnb_watch": self.perfnb_watch,
            "perfnb_explore": self.perfnb_explore,
            "perfnb_whatif": self.perfnb_whatif,
        }
        return {name: method.parser for name, method in methods.items()}

    @property
    def _parser(self) -> Any:
        """Of the options of %%perfnb."""
        magic: Any = self.perfnb
        return magic.parser

    def _options(self, line: str) -> Options:
        asked = given.parse_argstring(self.perfnb, line)
        if asked.trace is not None and asked.trace < 0:
            message = f"--trace takes a number of steps, not {asked.trace}"
            raise UsageError(message)
        return Options(
            variable=None if asked.variable is None else variable(asked.variable, "-o"),
            is_quiet=asked.is_quiet,
            config=None if asked.config is None else config_name(asked.config),
            trace=asked.trace,
            folder=None if asked.folder is None else unquoted(asked.folder),
            shows_panel=asked.shows_panel,
        )

    def _last_card(self) -> Bundle:
        if self.watching.last is None:
            message = "no cell was watched yet: put %%perfnb over one, or a statement behind %perfnb"
            raise UsageError(message)
        return self.watching.last.card

    def _opened(self, magic: Callable[..., Any], line: str, panel: Callable[..., Any]) -> Any:
        asked = given.parse_argstring(magic, line)
        try:
            found = chosen(self._names, self.watching.last, asked.run, asked.config)
            return panel(found.run, found.config, **found.edits)
        except PerfnbError as error:
            raise UsageError(str(error)) from error
