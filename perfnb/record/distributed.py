"""What the ranks exchange inside backward: how long backward waits for it, where torch's own logger tells."""

from __future__ import annotations

import contextlib
import sys
import time
import weakref
from typing import Any, Final

from perfnb.record.seen_config import seen_of_data_parallel

UNSEEN: Final = "what {kind} exchanges inside forward and backward is part of them: that needs a profiler window, record(trace=5)"

DEAR: Final = "asking DDP how long backward waited would cost {share:.1%} of these short steps"
CHANGED: Final = "this torch's DDP does not say how long backward waited: {error}"

LARGEST_SHARE: Final = 0.01
"""Of the training's time that asking may take: a question takes longer the more parameters there are."""

_QUESTIONS_BEFORE_JUDGING: Final = 20
_EVERY_ITERATION: Final = 1
_AS_TORCH_HAS_IT: Final = 100
"""Iterations per look of torch's logger: torch/csrc/distributed/c10d/reducer.hpp, kDefaultDDPRuntimeLoggingSampleRate."""

_FULLY_SHARDED: Final = ("FSDPModule", "FullyShardedDataParallel")


class GradientExchange:
    """The modules of this rank that exchange gradients, and how long each backward pass ended up waiting for that.

    DistributedDataParallel notes when the last gradient was there and when the last exchange had arrived. Between the two
    backward does nothing but wait and copy. On CPUs it notes the clock; on GPUs it records events whose reading waits for the
    device, so they are left alone.

    Attributes
    ----------
    is_on
        Whether there is a module to be asked after each backward pass.
    spent_ns
        CPU of the training thread that asking took.
    unseen
        Why the exchange of some modules cannot be told.
    seen
        Knobs of DistributedDataParallel as its module shows them.
    """

    def __init__(self) -> None:
        self.is_on = False
        self.spent_ns = 0
        self.unseen: set[str] = set()
        self.seen: dict[str, Any] = {}
        self._asked: list[weakref.ref[Any]] = []
        self._questions = 0
        self._first_ns = self._first_spent_ns = 0
        self._met: weakref.WeakSet[Any] = weakref.WeakSet()

    def meet(self, module: Any) -> None:
        """Look at a module that was called."""
        if module in self._met:
            return
        self._met.add(module)
        kinds = {kind.__name__ for kind in type(module).__mro__}
        if "DistributedDataParallel" in kinds:
            self._meet_data_parallel(module)
        elif kinds & set(_FULLY_SHARDED):
            self.unseen.add(UNSEEN.format(kind="FSDP"))

    def begin(self) -> int:
        """Have the clocks of this backward pass kept, which is about to begin; the moment of that."""
        for module in self._modules():
            _set_rate(module, _EVERY_ITERATION)
        return time.perf_counter_ns()

    def waited_ns(self, entered_ns: int, left_ns: int) -> int:
        """How long the backward pass between two moments only waited for other ranks.

        0 where no gradients were exchanged in it, as with `no_sync`.
        """
        waited = 0
        start_ns = time.thread_time_ns()
        to_own_ns = time.perf_counter_ns() - time.time_ns()  # torch notes the clock of the day
        for module in self._modules():
            if not getattr(module, "require_backward_grad_sync", True):
                continue
            try:
                ready_ns, arrived_ns = (moment + to_own_ns for moment in _times(module))
            except Exception as error:  # noqa: BLE001 - names of torch's without a promise: the training goes on without them
                self._give_up(CHANGED.format(error=f"{type(error).__name__}: {error}"))
                return 0
            if entered_ns <= ready_ns <= arrived_ns <= left_ns:  # else they are of an earlier pass
                waited += arrived_ns - ready_ns
        self._judge(time.thread_time_ns() - start_ns, left_ns)
        return min(waited, left_ns - entered_ns)

    def _judge(self, took_ns: int, now_ns: int) -> None:
        """Give up where asking takes too much of short steps; the first question starts things up and does not count."""
        self.spent_ns += took_ns
        self._questions += 1
        if self._questions == 1:
            self._first_ns, self._first_spent_ns = now_ns, self.spent_ns
        elif self._questions > _QUESTIONS_BEFORE_JUDGING:
            share = (self.spent_ns - self._first_spent_ns) / (now_ns - self._first_ns)
            if share > LARGEST_SHARE:
                self._give_up(DEAR.format(share=share))

    def close(self) -> None:
        """Leave the modules as they were."""
        for module in self._modules():
            _set_rate(module, _AS_TORCH_HAS_IT)
        self.is_on, self._asked = False, []

    def _modules(self) -> list[Any]:
        return [module for reference in self._asked if (module := reference()) is not None]

    def _meet_data_parallel(self, module: Any) -> None:
        self.seen |= seen_of_data_parallel(module, sys.modules["torch"])
        if any(parameter.device.type != "cpu" for parameter in module.parameters()):
            self.unseen.add(UNSEEN.format(kind="DDP"))
        elif all(hasattr(module, name) for name in ("reducer", "logger")):
            self._asked.append(weakref.ref(module))
            self.is_on = True
        else:
            self.unseen.add(CHANGED.format(error="it has no logger"))

    def _give_up(self, reason: str) -> None:
        self.unseen.add(reason)
        self.close()


def _set_rate(module: Any, iterations: int) -> None:
    """Have torch keep its clocks in one of so many iterations: in each while backward runs, else publishing costs twice."""
    with contextlib.suppress(Exception):  # then the clocks are old and `waited_ns` does not take them
        module.reducer._set_ddp_runtime_logging_sample_rate(iterations)  # noqa: SLF001 - no public name


def _times(module: Any) -> tuple[int, int]:
    """When the last gradient of this iteration was there and when the last exchange had arrived, in ns of the day."""
    module.logger.set_runtime_stats_and_log()  # else they are published in the next forward pass
    _set_rate(module, _AS_TORCH_HAS_IT)
    told = module.logger._get_ddp_logging_data().ints_map  # noqa: SLF001 - no public name
    return int(told["backward_compute_time_end"]), int(told["backward_comm_time_end"])
