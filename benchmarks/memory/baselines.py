"""What others say of the same training's memory: torch's MemTracker, and the estimate of accelerate."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import Any, Final

import torch

from benchmarks.memory.dry_run_families import Family, Options
from benchmarks.memory.dry_run_truth import train_steps

BASELINES: Final = ("mem_tracker", "accelerate")
_STEPS: Final = 2  # the optimizer's state is there from the second on
_PRECISIONS: Final = {"bf16": "bfloat16", "pure_bf16": "bfloat16"}


def mem_tracker_peak(family: Family, options: Options, batch_size: int) -> int | str:
    """Peak that torch's MemTracker counts under fake tensors, from before the model is made; or why it fails.

    `torch.distributed._tools.mem_tracker` of the torch that is installed: two steps, as the dry run takes.

    Parameters
    ----------
    family, options
        What is trained and how.
    batch_size
        Samples of a micro-batch.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415 - private, and only for this
    from torch.distributed._tools.mem_tracker import MemTracker  # noqa: PLC0415 - as above

    tracker = MemTracker()
    try:
        with FakeTensorMode(), tracker:
            train_steps(family, options, batch_size, _STEPS, after_step=tracker.reset_mod_stats)
    except Exception as error:  # noqa: BLE001 - whatever it stumbles over is its answer
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
    found = tracker.get_tracker_snapshot("peak")
    totals = [sizes[name] for sizes in found.values() for name in sizes if str(name).endswith("Total")]
    return max((int(total) for total in totals), default=0)


def accelerate_peak(family: Family, options: Options) -> int | str:
    """What `accelerate estimate-memory` says of training: from the model's size alone; or that accelerate is not installed.

    Parameters
    ----------
    family, options
        What is trained and how.
    """
    if importlib.util.find_spec("accelerate") is None:
        return "accelerate is not installed"
    from accelerate.commands.estimate import estimate_training_usage  # noqa: PLC0415 - where it is installed
    from accelerate.utils import calculate_maximum_sizes  # noqa: PLC0415 - as above

    with torch.device("meta"), contextlib.suppress(Exception):
        model: Any = family.model()
        size, _ = calculate_maximum_sizes(model)
        told = estimate_training_usage(size, _PRECISIONS.get(options.get("precision", ""), "float32"))
        return int(max(told.values()))
    return "the model cannot be made without memory"
