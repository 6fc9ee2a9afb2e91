"""One watch of a cell: what was asked for, what runs meanwhile, and what is known once it has ended."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from IPython.core.interactiveshell import ExecutionInfo

from perfnb.magics.cell_text import OTHER_PROCESS, magics_at_top
from perfnb.magics.children import ChildProcesses

if TYPE_CHECKING:
    from perfnb.record.recorder import Recorder
    from perfnb.run import Run
    from perfnb.watched_cell import TorchState, WatchedCell

TRACED_STEPS: Final = 5
"""Steps under torch.profiler where CUDA is in use and `--trace` is not given."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `%%perfnb`.

    Attributes
    ----------
    variable
        Where the Diagnosis goes; None for nowhere.
    is_quiet
        Whether nothing is shown.
    config
        Name of the variable that holds the config.
    trace
        Steps under torch.profiler; None for `TRACED_STEPS` where CUDA is in use.
    folder
        Run folder to record into.
    shows_panel
        Whether the bottleneck panel follows the card.
    """

    variable: str | None = None
    is_quiet: bool = False
    config: str | None = None
    trace: int | None = None
    folder: str | None = None
    shows_panel: bool = False


@dataclass(slots=True, eq=False)
class Watch:
    """A watch under way.

    Attributes
    ----------
    options
        What was asked for.
    cell
        The cell that it ends with; None for a statement of which IPython told no cell.
    recorder, children
        What runs meanwhile.
    had_torch
        Whether torch was imported when it began.
    started_s
        When it began (time.perf_counter).
    thread
        The thread that it began in.
    seconds, child_processes
        How long it took and what was started meanwhile, once it has ended.
    error
        What ended it.
    """

    options: Options
    cell: ExecutionInfo | None
    recorder: Recorder
    children: ChildProcesses
    had_torch: bool
    started_s: float
    thread: int = field(default_factory=threading.get_ident)
    seconds: float | None = None
    child_processes: int = 0
    error: BaseException | None = None


def watched_cell(watch: Watch, run: Run, *, says_no_device: bool) -> WatchedCell:
    """What was recorded of a cell, with how it ended.

    Parameters
    ----------
    watch
        The watch, which has ended.
    run
        What was recorded.
    says_no_device
        Whether the card may say that there is no GPU.

    Returns
    -------
    WatchedCell
        What its card is made of.
    """
    from perfnb.watched import WatchedCell  # noqa: PLC0415 - loading the extension must stay cheap

    error = watch.error
    torch = sys.modules.get("torch")
    text = "" if watch.cell is None else str(watch.cell.raw_cell)
    other = next((f"%%{name}" for name in magics_at_top(text) if name in OTHER_PROCESS), "")
    return WatchedCell(
        run,
        watch.seconds or 0.0,
        error="" if error is None else type(error).__name__,
        is_out_of_memory=error is not None and any(each.__name__ == "OutOfMemoryError" for each in type(error).__mro__),
        torch=_torch_state(had_torch=watch.had_torch),
        torch_version=str(getattr(torch, "__version__", "")),
        other_process=other,
        child_processes=0 if other else watch.child_processes,
        host_cores=os.cpu_count() or 1,
        says_no_device=says_no_device and "gpu_samples" in run.missing,
    )


def _torch_state(*, had_torch: bool) -> TorchState:
    if had_torch:
        return "imported"
    if "torch" in sys.modules:
        return "imported late"
    return "not used" if _is_installed("torch") else "not installed"


def import_torch() -> None:
    """Import torch before the cell does, so that its hooks are there and the import is not in the measured time."""
    if "torch" in sys.modules or not _is_installed("torch"):
        return
    with contextlib.suppress(Exception):  # a broken one raises again in the user's cell, where it belongs
        importlib.import_module("torch")


def uses_cuda() -> bool:
    """Whether this kernel uses CUDA; asking whether it could would start the driver."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda is not None and bool(cuda.is_initialized())


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # an import hook refuses it, or something half made stands in its place
        return False
