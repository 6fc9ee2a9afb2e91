"""Random states put back as they were: a probe must not change which samples and which dropout the training draws."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def kept_states(*owners: Any) -> Iterator[None]:
    """Inside, random numbers may be drawn and torch computes with one thread, as in a worker; after it all is as before.

    The states of Python, numpy and torch (CPU, and CUDA where it is in use), and of each torch.Generator that one of the
    owners holds as `generator`.

    Parameters
    ----------
    owners
        A loader, its sampler, its batch sampler, its dataset.
    """
    import torch  # noqa: PLC0415 - torch only where something is measured

    python, numpy, own = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the user's own state
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    found = {id(each): each for owner in owners if isinstance(each := getattr(owner, "generator", None), torch.Generator)}
    generators = [(generator, generator.get_state()) for generator in found.values()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torch/utils/data/_utils/worker.py: what every worker does first
    try:
        with torch.no_grad():  # recorders of perfnb take a loader outside of training for no training
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002 - as above
        torch.set_rng_state(own)
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        for generator, state in generators:
            generator.set_state(state)
