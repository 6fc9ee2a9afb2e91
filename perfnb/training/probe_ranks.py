"""Several ranks in one probe: they see one loss and come to one answer, so that none leaves while another waits."""

from __future__ import annotations

from typing import Any

import numpy as np

from perfnb.training.statistics import Floats


def mean_over_ranks(losses: list[float]) -> Floats:
    """Losses of some steps, meant over all ranks; one rank's NaN is everyone's."""
    if not is_distributed():
        return np.array(losses, dtype=np.float64)
    values = _reduced(losses)
    return np.array([float(each) for each in values], dtype=np.float64)


def agreed(*, is_so: bool) -> bool:
    """Whether it is so on any rank."""
    return bool(_reduced([float(is_so)])[0] > 0) if is_distributed() else is_so


def is_distributed() -> bool:
    """Whether this process is one of several ranks."""
    import torch.distributed as dist  # noqa: PLC0415 - only where it is used

    return bool(dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def _reduced(values: list[float]) -> Any:
    """Mean over ranks, by whichever device the process group communicates on."""
    import torch  # noqa: PLC0415 - only where it is used
    import torch.distributed as dist  # noqa: PLC0415 - the same

    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    told = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(told)
    return (told / dist.get_world_size()).tolist()
