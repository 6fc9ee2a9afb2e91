"""record(): what one line over a training loop measures."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, Final

from perfnb.errors import RecordingError
from perfnb.record.recorder import Recorder

SHORTEST_PAUSE_S: Final = 0.01


def record(
    folder: str | PathLike[str] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    trace: int = 0,
    overwrite: bool = False,
    hooks: bool = True,
    gpu_interval_s: float = 1.0,
    host_interval_s: float = 0.1,
    reset_peaks: bool = False,
) -> Recorder:
    """Recorder of the training inside a `with`: steps and their phases, GPU, host and workers, loss and learning rate.

    Parts of a step are found by torch's own global hooks, with no change of the loop; a step goes from one step of the optimizer
    to the next. A loop that these cannot see says where its steps and phases are: `Recorder.steps`, `Recorder.phase`,
    `Recorder.step`. Call it in the thread that trains; under torchrun, in each process.

    Parameters
    ----------
    folder
        Where the run is written while it runs, to be read by `read_run` in any process; each rank writes its own part. Kept in
        memory where left out.
    config
        The training's config, kept with the run; settings that the loader and the optimizer show are added to it.
    trace
        Steps to record under torch.profiler too, once the training has warmed up; 0 for none.
    overwrite
        Whether an earlier recording in the folder may be replaced.
    hooks
        Whether torch's hooks are used; without them steps and phases are those marked by hand.
    gpu_interval_s, host_interval_s
        Pauses between samples of the GPUs and of the host.
    reset_peaks
        Whether torch's peaks of a GPU's memory are reset at the end of each step, so that each step has its own; your own
        readings of `torch.cuda.max_memory_allocated()` are those of the last step then.

    Returns
    -------
    Recorder
        To be entered.

    Raises
    ------
    RecordingError
        If an argument makes no sense; on entering, if another recording is under way in this process or holds the folder.

    Examples
    --------
    >>> import perfnb
    >>> with perfnb.record(hooks=False) as recorder:
    ...     for batch in recorder.steps([1, 2, 3]):
    ...         recorder.log(loss=1.0 / batch)
    >>> recorder.run.steps["step"].to_list()
    [0, 1, 2]
    """
    if trace < 0:
        message = f"trace={trace} is no number of steps: 0 for no profiler, 5 for five steps under it"
        raise RecordingError(message)
    for name, pause in (("gpu_interval_s", gpu_interval_s), ("host_interval_s", host_interval_s)):
        if not pause >= SHORTEST_PAUSE_S:
            message = f"{name}={pause!r} is too short: {SHORTEST_PAUSE_S} s at least"
            raise RecordingError(message)
    return Recorder(
        folder,
        config=config,
        trace=trace,
        overwrite=overwrite,
        hooks=hooks,
        gpu_interval_s=gpu_interval_s,
        host_interval_s=host_interval_s,
        reset_peaks=reset_peaks,
    )
