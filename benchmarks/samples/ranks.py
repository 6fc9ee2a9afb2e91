"""One process or several: runs a function in each rank of a gloo group, and lets the ranks agree on what they saw."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import multiprocessing


def run_in_ranks(world_size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in this process, or in each of ``world_size`` new ones that form a gloo group.

    Parameters
    ----------
    world_size
        Number of ranks; 1 stays in this process, without a group.
    function
        Importable function.
    arguments
        What it is called with.
    """
    if world_size == 1:
        function(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        multiprocessing.spawn(_run_rank, args=(world_size, str(meeting), function, arguments), nprocs=world_size)


def _run_rank(rank: int, world_size: int, meeting: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # gloo else looks its own host name up, which need not resolve
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()


def this_rank() -> int:
    """Rank of this process, 0 where there is no group."""
    return dist.get_rank() if dist.is_initialized() else 0


def from_all_ranks(value: Any) -> list[Any]:
    """What each rank passed, in the order of the ranks: all of them see the same list and so decide alike."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
