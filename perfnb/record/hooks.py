"""torch's own global hooks: the parts of each step of a plain training loop, without a change of its code."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from perfnb.record.distributed import GradientExchange
from perfnb.record.loader_hooks import LoaderHooks
from perfnb.record.marks import Code, Marks
from perfnb.record.module_hooks import ModuleHooks, without_hooks
from perfnb.record.patches import Patch
from perfnb.record.phase_names import SCALED_STEP
from perfnb.record.seen_config import seen_of_optimizer

COLLECTIVES: Final = (
    "all_reduce",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
)
"""Functions of torch.distributed that a loop calls itself; what DDP and FSDP exchange inside backward they exchange elsewhere."""


class Watch:
    """Hooks of one training thread, from `install` to `remove`.

    Attributes
    ----------
    marks
        Where the hooks leave their marks.
    on_edge
        Called on the training thread at the end of each step.
    by_hand
        Whether the user marks the edges of steps, so that the optimizer does not.
    worker_pids
        Processes of the loader's iterator that the training uses.
    seen
        Settings of the loader and the optimizer as they were seen, knob to value.
    optimizers
        Kinds of the optimizers that stepped.
    exchange
        Modules that exchange gradients inside backward.
    is_marked_elsewhere
        Whether another thread marked phases or steps by hand.
    """

    def __init__(self, marks: Marks, on_edge: Callable[[], None]) -> None:
        self.marks, self.on_edge = marks, on_edge
        self.by_hand = False
        self.worker_pids: tuple[int, ...] = ()
        self.seen: dict[str, Any] = {}
        self.optimizers: list[str] = []
        self.modules = ModuleHooks(self)
        self.loaders = LoaderHooks(self)
        self.exchange = GradientExchange()
        self.is_compiling: Callable[[], bool] = bool
        self.is_grad_enabled: Callable[[], bool] = bool
        self._thread = threading.get_ident()
        self._patches: list[Patch] = []
        self._handles: list[Any] = []
        self._first: weakref.ref[Any] | None = None  # the optimizer whose steps end steps
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._scaler: Any = None
        self._stepped = False
        self._plain_tensor: Any = None
        self._is_loss_scaled = False
        self.is_marked_elsewhere = False

    def is_elsewhere(self) -> bool:
        """Whether the caller runs in another thread or a forked process: none of that is this recording's."""
        return threading.get_ident() != self._thread

    def install(self, *, module_hooks: bool = True) -> None:
        """Put the hooks in place; torch must have been imported.

        Parameters
        ----------
        module_hooks
            Whether forward passes are watched.
        """
        import torch  # noqa: PLC0415 - torch only where it is used
        from torch.optim import optimizer as optimizers  # noqa: PLC0415

        self.is_compiling, self.is_grad_enabled = torch.compiler.is_compiling, torch.is_grad_enabled
        self._plain_tensor = torch.Tensor
        self._patches = [
            *self.loaders.patches(),
            Patch(torch.autograd, "backward", self._backward),
            Patch(torch.amp.GradScaler, "scale", self._scaled_loss),
            Patch(torch.amp.GradScaler, "step", self._scaler_step),
            Patch(torch.jit, "script", self.modules.scripting),
            Patch(torch.nn.Module, "__reduce_ex__", without_hooks),
            self._clipping(torch),
        ]
        if torch.distributed.is_available():
            self._patches += [
                Patch(torch.distributed, name, self._collective) for name in COLLECTIVES if hasattr(torch.distributed, name)
            ]
        self._handles = [
            optimizers.register_optimizer_step_pre_hook(self._before_step),
            optimizers.register_optimizer_step_post_hook(self._after_step),
        ]
        if module_hooks:
            self.modules.search()
        _LIVE.add(self)

    def remove(self) -> None:
        """Take every hook off; calling it again does nothing."""
        self.modules.close()
        for handle in self._handles:
            handle.remove()
        for patch in self._patches:
            patch.remove()
        self._handles, self._patches = [], []
        self.exchange.close()
        self._thread = -1

    def edge(self, phase: str | None = None) -> None:
        """A step ends here, and the phase with it."""
        self.marks.mark(Code.EDGE, phase)
        self.on_edge()

    def _backward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def backward(tensors: Any, *arguments: Any, **named: Any) -> Any:
            if self.is_elsewhere() or self.is_compiling():
                return original(tensors, *arguments, **named)
            marks, exchange = self.marks, self.exchange
            self.loaders.use()
            entered_ns = exchange.begin() if exchange.is_on else 0
            marks.mark(Code.ENTER, "backward")
            try:
                return original(tensors, *arguments, **named)
            finally:
                marks.mark(Code.LEAVE, "backward")
                if entered_ns and (waited_ns := exchange.waited_ns(entered_ns, time.perf_counter_ns())):
                    marks.note(Code.EXCHANGED, waited_ns)
                if not self._is_loss_scaled:
                    self._note_loss(tensors)

        return backward

    def _note_loss(self, tensors: Any) -> None:
        loss = tensors[0] if isinstance(tensors, (tuple, list)) and len(tensors) == 1 else tensors
        if getattr(loss, "ndim", None) == 0:
            # nothing waits for a number of the CPU, and it costs less to keep than a tensor
            with contextlib.suppress(RuntimeError):
                value = loss.item() if type(loss) is self._plain_tensor and loss.is_cpu else loss.detach()
                self.marks.note(Code.VALUE, ("backward_loss", value, False, None))

    def _scaled_loss(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def scale(scaler: Any, outputs: Any) -> Any:
            if not self.is_elsewhere():
                self._is_loss_scaled = scaler.is_enabled()
            return original(scaler, outputs)

        return scale

    def _scaler_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(scaler: Any, optimizer: Any, *arguments: Any, **named: Any) -> Any:
            if self.is_elsewhere():
                return original(scaler, optimizer, *arguments, **named)
            marks = self.marks
            self._scaler, self._stepped = scaler, False
            marks.mark(Code.ENTER, SCALED_STEP)
            scale = scaler._scale  # noqa: SLF001 - get_scale() would wait for the device
            if scale is not None and scale.device.type == "cpu":
                marks.note(Code.VALUE, ("loss_scale", float(scale), False, None))
            try:
                return original(scaler, optimizer, *arguments, **named)
            finally:
                self._scaler = None
                if not self._stepped:
                    marks.note(Code.SKIPPED, None)
                self._ended(optimizer, SCALED_STEP)

        return step

    def _clipping(self, torch: Any) -> Patch:
        """What clip_grad_norm_ itself calls, so that those who imported it before are seen too; older torch has none."""
        clipping = torch.nn.utils.clip_grad
        if hasattr(clipping, "_clip_grads_with_norm_"):
            return Patch(clipping, "_clip_grads_with_norm_", self._clipped_with)
        return Patch(torch.nn.utils, "clip_grad_norm_", self._clipped)

    def _clipped_with(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def clip_grads_with_norm_(parameters: Any, max_norm: Any, total_norm: Any, *arguments: Any, **named: Any) -> Any:
            self._note_clipping(total_norm, max_norm)
            return original(parameters, max_norm, total_norm, *arguments, **named)

        return clip_grads_with_norm_

    def _clipped(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def clip_grad_norm_(parameters: Any, max_norm: Any, *arguments: Any, **named: Any) -> Any:
            norm = original(parameters, max_norm, *arguments, **named)
            self._note_clipping(norm, max_norm)
            return norm

        return clip_grad_norm_

    def _note_clipping(self, norm: Any, max_norm: Any) -> None:
        if not (self.is_elsewhere() or self.is_compiling()):
            for name, value in (("gradient_norm", norm), ("clip_norm", max_norm)):
                self.marks.note(Code.VALUE, (name, value.detach() if hasattr(value, "detach") else value, False, None))

    def _collective(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def collective(*arguments: Any, **named: Any) -> Any:
            if self.is_elsewhere() or self.is_compiling():
                return original(*arguments, **named)
            self.marks.mark(Code.ENTER, "communication")
            try:
                return original(*arguments, **named)
            finally:
                self.marks.mark(Code.LEAVE, "communication")

        return collective

    def _before_step(self, _optimizer: Any, _arguments: Any, _named: Any) -> None:
        if not (self.is_compiling() or self.is_elsewhere()):
            self.marks.mark(Code.ENTER, "optimizer")

    def _after_step(self, optimizer: Any, _arguments: Any, _named: Any) -> None:
        if self.is_compiling() or self.is_elsewhere():
            return
        self._stepped = True
        if not self._is_first(optimizer):
            self._meet(optimizer)
        if self._is_first(optimizer):
            rate = optimizer.param_groups[0].get("lr")
            if rate is not None:
                self.marks.note(Code.VALUE, ("learning_rate", rate, False, None))
        if self._scaler is None:
            self._ended(optimizer, "optimizer")
        else:  # the scaler's own step ends it
            self.marks.mark(Code.LEAVE, "optimizer")

    def _is_first(self, optimizer: Any) -> bool:
        return self._first is not None and self._first() is optimizer

    def _ended(self, optimizer: Any, phase: str) -> None:
        first = self._first() if self._first is not None else None
        if self.by_hand or not (first is optimizer or first is None):
            self.marks.mark(Code.LEAVE, phase)
        else:
            self.edge(phase)

    def _meet(self, optimizer: Any) -> None:
        if optimizer in self._known:
            return
        self._known.add(optimizer)
        self.optimizers.append(type(optimizer).__name__)
        if self._first is None or self._first() is None:
            self._first = weakref.ref(optimizer)
            self.seen.update(seen_of_optimizer(optimizer))


_LIVE: Final[weakref.WeakSet[Watch]] = weakref.WeakSet()


def _forget() -> None:
    """A forked child, such as a loader's worker, is not watched."""
    for watch in _LIVE:
        watch._thread = -1  # noqa: SLF001 - the same file's


if hasattr(os, "register_at_fork"):  # once: what is registered cannot be taken back
    os.register_at_fork(after_in_child=_forget)
