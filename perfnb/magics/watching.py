"""The watch of a cell: it begins at the line `%%perfnb`, and ends with the very cell in which it began."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell

from perfnb.errors import PerfnbError
from perfnb.magics.cell_text import magics_at_top, names_training
from perfnb.magics.children import ChildProcesses
from perfnb.magics.names import Names
from perfnb.magics.watch import TRACED_STEPS, Options, Watch, import_torch, uses_cuda, watched_cell

if TYPE_CHECKING:
    from perfnb.document import Bundle
    from perfnb.findings import Diagnosis
    from perfnb.record.recorder import Recorder
    from perfnb.run import Run

_NO_DEVICE_SAID: Final[list[bool]] = []
"""Holds something once a card of this kernel has said that there is no GPU; it outlives a reload of the extension."""


@dataclass(frozen=True, slots=True, eq=False)
class Last:
    """What the last watched cell came to."""

    run: Run
    diagnosis: Diagnosis
    card: Bundle
    config: str | None


class Watching:
    """Begins and ends the watch of cells, at most one at a time.

    Attributes
    ----------
    last
        What the last watched cell came to.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self.last: Last | None = None
        self._shell = shell
        self._open: list[ExecutionInfo] = []  # cells that run: magics such as %%capture run one inside another
        self._watch: Watch | None = None

    @property
    def is_on(self) -> bool:
        """Whether a cell is being watched."""
        return self._watch is not None

    @property
    def cell(self) -> ExecutionInfo | None:
        """The innermost cell that runs; None where IPython told of none, as for silent ones."""
        return self._open[-1] if self._open else None

    def before_cell(self, info: ExecutionInfo) -> None:
        """IPython's event `pre_run_cell`."""
        self._open.append(info)

    def after_cell(self, result: ExecutionResult | None) -> None:
        """IPython's event `post_run_cell`: ends the watch if this is the end of its cell."""
        self._leave(result)
        watch = self._watch
        if watch is None:
            return
        error = None if result is None else result.error_before_exec or result.error_in_exec
        if watch.cell is not None and any(info is watch.cell for info in self._open):
            watch.error = watch.error or error  # of a cell inside: %%capture calls it a success
            return
        watch.error = error or watch.error
        self.end()

    def begin(self, options: Options, *, may_repeat: bool = False) -> bool:
        """Begin to watch the innermost cell.

        Parameters
        ----------
        options
            What was asked for.
        may_repeat
            Whether the cell may come here again and again: %%timeit runs the line that stands for `%%perfnb` in a loop.

        Returns
        -------
        bool
            Whether a watch began: not while another is under way, which a line then says.

        Raises
        ------
        UsageError
            If an option cannot be followed; the cell then ends before its first line.
        """
        if options.config is not None:
            config: Mapping[str, Any] | None = Names(self._shell.user_ns).config(options.config)
        else:
            config = None
        if self._is_taken(may_repeat=may_repeat):
            return False
        try:
            return self._begin(options, config)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of perfnb must not keep the user's cell from running
            self._tell(error, "could not watch this cell")
            return False

    def _begin(self, options: Options, config: Mapping[str, Any] | None) -> bool:
        cell = self.cell
        text = "" if cell is None else str(cell.raw_cell)
        if magics_at_top(text).count("perfnb") > 1:
            say("perfnb: one %%perfnb is enough, the others are ignored")
        if names_training(text):
            import_torch()
        recorder = self._recorder(options, config)
        if recorder is None:
            return False
        children = ChildProcesses()
        children.start()
        self._watch = Watch(options, cell, recorder, children, "torch" in sys.modules, time.perf_counter())
        return True

    def stop(self, error: BaseException | None = None) -> None:
        """End the recording, but not yet the watch: its card comes after the traceback.

        Parameters
        ----------
        error
            What ended it.
        """
        watch = self._watch
        if watch is None or watch.seconds is not None:
            return
        watch.seconds = time.perf_counter() - watch.started_s
        watch.error = watch.error or error
        watch.child_processes = watch.children.stop()
        if watch.error is None or watch.options.folder is None:  # in memory only the card tells of it, and it has its own words
            watch.recorder.finish()
        else:
            watch.recorder.finish("failed", f"{type(watch.error).__name__}: {watch.error}")

    def end(self) -> None:
        """End the watch and show what it came to; nothing that goes wrong here reaches the user's cell."""
        watch = self._watch
        if watch is None:
            return
        try:
            self.stop()
            self._watch = None
            self._conclude(watch)
        except KeyboardInterrupt:
            say("perfnb: the diagnosis was interrupted. Your cell is unaffected.")
        except Exception as error:  # noqa: BLE001 - a defect of perfnb is one line, never the user's trouble
            self._tell(error, "could not diagnose this run")
        finally:
            self._watch = None

    def drop(self) -> None:
        """End a watch without a word."""
        self.stop()
        self._watch = None

    def _tell(self, error: Exception, what: str) -> None:
        """Say in a line that perfnb failed; called where the error was caught."""
        problem = f"{type(error).__name__} {error}"
        say(f"perfnb {what}: {problem}. Your cell is unaffected. PERFNB_DEBUG=1 shows the traceback")
        if os.environ.get("PERFNB_DEBUG") == "1":
            self._shell.showtraceback()

    def _leave(self, result: ExecutionResult | None) -> None:
        """Take the cell that ended off those that run, with any inside it whose end went untold."""
        info = getattr(result, "info", None)
        ended = [index for index, each in enumerate(self._open) if each is info]
        if ended:
            del self._open[ended[-1] :]
        elif self._open and (info is None or info.raw_cell == self._open[-1].raw_cell):
            self._open.pop()  # an interrupt outside the cell's code: IPython tells of it with no info, or one made anew

    def _is_taken(self, *, may_repeat: bool) -> bool:
        watch = self._watch
        if watch is None:
            return False
        is_here = watch.thread == threading.get_ident()
        if is_here and may_repeat and watch.cell is self.cell:
            return True
        if is_here and not any(info is watch.cell for info in self._open):
            self.drop()  # the end of its cell was never told
            return False
        say("perfnb already watches: this one is ignored")
        return True

    def _recorder(self, options: Options, config: Mapping[str, Any] | None) -> Recorder | None:
        from perfnb.record.recorder import Recorder  # noqa: PLC0415 - loading the extension must stay cheap

        trace = options.trace if options.trace is not None else TRACED_STEPS if uses_cuda() else 0
        recorder = Recorder(options.folder, config=config, trace=trace, yields=True)
        try:
            return recorder.start()
        except PerfnbError as error:
            if options.folder is not None:
                raise UsageError(str(error)) from error
            say(f"perfnb does not watch this cell: {error}")
            return None

    def _conclude(self, watch: Watch) -> None:
        from perfnb.watched import judged  # noqa: PLC0415 - loading the extension must stay cheap

        options = watch.options
        recorder = watch.recorder.successor or watch.recorder  # the user's own record() inside the cell knows better
        cell = watched_cell(watch, recorder.run, says_no_device=not _NO_DEVICE_SAID)
        names = Names(self._shell.user_ns)
        config = names.config(options.config) if options.config is not None else None
        came_to = judged(cell, config)
        self.last = Last(cell.run, came_to.diagnosis, came_to.card, options.config)
        if options.variable is not None:
            self._shell.user_ns[options.variable] = came_to.diagnosis
        if options.is_quiet:
            return
        self._show(came_to.card.mimebundle(), {})
        if cell.says_no_device:
            _NO_DEVICE_SAID.append(True)
        if options.shows_panel:
            self._show_panel(cell.run, names, options.config)

    def _show_panel(self, run: Run, names: Names, name: str | None) -> None:
        from perfnb.panels import bottleneck_panel  # noqa: PLC0415 - widgets only for those who ask for them

        panel = bottleneck_panel(run) if name is None else bottleneck_panel(run, names.config(name), **names.edits(name))
        formatter: Any = self._shell.display_formatter
        self._show(*formatter.format(panel))

    def _show(self, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        publisher: Any = self._shell.display_pub
        publisher.publish(data=dict(data), metadata=dict(metadata))


def say(line: str) -> None:
    """Print a line below the cell.

    Parameters
    ----------
    line
        What to say.
    """
    print(line)  # noqa: T201 - it belongs to the cell's output
