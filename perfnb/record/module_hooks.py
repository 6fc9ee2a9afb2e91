"""Forward passes: which modules are called outermost while training, found by global hooks and then watched alone."""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from perfnb.record.marks import Code
from perfnb.record.phase_names import INFERENCE

if TYPE_CHECKING:
    from perfnb.record.hooks import Watch

COMPILED_UNDER_HOOKS: Final = "Using `torch.compile\\(module\\)` when there are global hooks"
"""Beginning of the warning of torch 2.13 at each call of a compiled module while we search: it is about our hooks alone, which
see the module inside the compiled one as a call inside a call."""

SEARCH_STEPS: Final = 5
"""Steps under global hooks, which see every module's call: 0.8 -> 3.0 us each (shared/design, notebook 7)."""

SMALLEST_SHARE: Final = 0.02
"""Of the time of all forward passes: an outermost module with less, such as a loss function, keeps no hook."""

_HOOKS_OF_A_MODULE: Final = ("_forward_hooks", "_forward_pre_hooks")

SEARCH_AGAIN_EVERY: Final = 100
"""One step in so many looks for modules that were not called before."""


class Hook(functools.partial[None]):
    """A hook that stays where it is: a copy of its module, or the module read from a file, has one that does nothing.

    Models are copied and saved while they train, and what stands behind our hooks can be neither. `without_hooks` leaves them
    out of what is copied or saved; this is for a class that pickles itself in a way of its own.
    """

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")  # takes anything, does nothing, and needs no perfnb


def without_hooks(original: Callable[..., Any]) -> Callable[..., Any]:
    """How a module is copied and pickled, without our hooks."""

    def reduced(module: Any, protocol: Any) -> Any:
        parts = original(module, protocol)
        state = parts[2] if isinstance(parts, tuple) and len(parts) > 2 else None  # noqa: PLR2004 - object.__reduce_ex__: how, of what, state
        if not isinstance(state, dict):
            return parts
        kept = dict(state)
        for name in _HOOKS_OF_A_MODULE:
            hooks = kept.get(name)
            if hooks and any(isinstance(hook, Hook) for hook in hooks.values()):
                kept[name] = type(hooks)((key, hook) for key, hook in hooks.items() if not isinstance(hook, Hook))
        return (*parts[:2], kept, *parts[3:])

    return reduced


def _largest(spent: Mapping[Any, int]) -> dict[Any, int]:
    """Modules without those that take next to nothing."""
    least = SMALLEST_SHARE * sum(spent.values())
    return {module: own for module, own in spent.items() if own >= least}


class ModuleHooks:
    """Marks the outermost forward pass of any module: as forward while gradients are recorded, else as inference.

    Global hooks cost a little at every module's call, so after a few steps only the modules that were outermost keep hooks. A
    hook that meets torch.compile at work leaves at once: anything else would make the compiler give up the module for good.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        # module to its time while searching: outermost ones with gradients, and without
        self._roots: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._inferring: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._handles: list[Any] = []
        self._depth = 0
        self._marked = -1  # depth at which the forward phase was opened
        self._is_inference = False  # whether the outermost pass records no gradients
        self._is_searching = False
        self._is_compiled = False
        self._entered_ns = self._began_ns = 0
        self._filter: Any = None
        self._refuses = False
        self.calls = 0

    @property
    def is_on(self) -> bool:
        """Whether any hook is in place."""
        return bool(self._handles)

    def search(self) -> None:
        """Watch all modules."""
        import torch.nn.modules.module as modules  # noqa: PLC0415 - torch only where it is used

        self.remove()
        self._is_searching = True
        if self._filter is None:  # once: a change of the filters has Python show warnings again that it showed before
            warnings.filterwarnings("ignore", message=COMPILED_UNDER_HOOKS, category=UserWarning)
            self._filter = warnings.filters[0]
        self._handles = [
            modules.register_module_forward_pre_hook(self._before),
            modules.register_module_forward_hook(self._after, always_call=True),
        ]

    def settle(self) -> None:
        """Watch only the modules that were outermost so far; go on searching where there is none, or one that takes no hook."""
        if not self._roots or self._refuses:
            return
        self.remove()
        try:
            for root in {**_largest(self._roots), **_largest(self._inferring)}:
                self._handles.append(root.register_forward_pre_hook(Hook(self._before), prepend=True))
                self._handles.append(root.register_forward_hook(Hook(self._after), always_call=True))
        except RuntimeError:  # a scripted module
            self._refuses = True
            self.search()

    def at_edge(self, step: int) -> None:
        """Search or settle, at the end of a step of that number."""
        if not self._handles:
            return
        self._depth, self._marked, self._is_inference = 0, -1, False  # an interrupt left no hook to say that its pass ended
        if self._is_searching:
            if step >= SEARCH_STEPS - 1:
                self.settle()
        elif step % SEARCH_AGAIN_EVERY == SEARCH_AGAIN_EVERY - 1 and not self._is_compiled:
            self.search()

    def remove(self) -> None:
        """Take all hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._is_searching = [], False
        self._depth, self._marked, self._is_inference = 0, -1, False

    def close(self) -> None:
        """Take all hooks off, and the filter of warnings with them."""
        self.remove()
        if self._filter in warnings.filters:
            warnings.filters.remove(self._filter)  # type: ignore[attr-defined]
        self._filter = None

    def scripting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """torch.jit.script without our hooks on the module, which it would try to compile."""

        def script(*arguments: Any, **named: Any) -> Any:
            was_on = self.is_on
            self.remove()
            try:
                return original(*arguments, **named)
            finally:
                if was_on:
                    self.search()

        return script

    def _before(self, module: Any, _inputs: Any) -> None:
        watch = self._watch
        if watch.is_compiling() or watch.is_elsewhere():
            return
        self.calls += 1
        self._depth += 1
        if self._is_searching:
            watch.exchange.meet(module)
            watch.seen.update(watch.exchange.seen)
        if self._marked >= 0:
            return
        if not watch.is_grad_enabled():
            if self._depth == 1:
                self._is_inference, self._began_ns = True, time.perf_counter_ns()
                watch.marks.mark(Code.ENTER, INFERENCE)
        else:
            self._marked = self._depth
            if self._is_searching:
                self._entered_ns = time.perf_counter_ns()
                self._is_compiled |= type(module).__name__ == "OptimizedModule"  # what torch.compile(module) returns
            watch.marks.mark(Code.ENTER, "forward")

    def _after(self, module: Any, _inputs: Any, _output: Any) -> None:
        watch = self._watch
        if watch.is_compiling() or watch.is_elsewhere() or not self._depth:
            return
        if self._depth == self._marked:
            self._marked = -1
            if self._is_searching:
                self._roots[module] = self._roots.get(module, 0) + time.perf_counter_ns() - self._entered_ns
            watch.marks.mark(Code.LEAVE, "forward")
        if self._depth == 1 and self._is_inference:
            self._is_inference = False
            if self._is_searching:
                self._inferring[module] = self._inferring.get(module, 0) + time.perf_counter_ns() - self._began_ns
            watch.marks.mark(Code.LEAVE, INFERENCE)
        self._depth -= 1
