"""When each storage of a dry run is made and freed, what it holds, and which operators ran: no memory is allocated."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from perfnb.whatif.dry_run_operators import OperatorCounts
from perfnb.whatif.dry_run_setup import ModelFunctions, TrainingSetup
from perfnb.whatif.dry_run_step import CannotTrainError, tensors_in, unit_bytes

Event = tuple[int, int, str]
"""Number of the storage, its bytes (negative: freed), the phase."""

_NARROW_BYTES: Final = 2
_KEPT: Final = ("parameter", "buffer", "gradient", "optimizer_state")


@dataclass(slots=True, eq=False)
class StorageLog:
    """Lifetimes of storages, in their order.

    Attributes
    ----------
    events
        What was made and freed.
    category
        Number of a storage to what it holds; temporaries are not in it.
    scalars
        Numbers of storages that a CUDA training keeps on the host: the step counts of an optimizer.
    """

    events: list[Event] = field(default_factory=list)
    category: dict[int, str] = field(default_factory=dict)
    scalars: set[int] = field(default_factory=set)
    phase: str = "init"
    count: int = 0
    live: dict[int, tuple[Any, int, int]] = field(default_factory=dict)  # id of a storage: its weak reference, number, bytes
    made_in_forward: set[int] = field(default_factory=set)
    is_paused: bool = False

    def see(self, tensor: Any) -> int:
        """Number of a tensor's storage, which is new if it was not seen before."""
        storage = tensor.untyped_storage()
        key, size = id(storage), int(storage.nbytes())
        known = self.live.get(key)
        if known is not None:
            reference, number, before = known
            if before != size:  # resized in place: a new block takes the contents
                self.events += [(number, size, self.phase), (number, -before, self.phase)]
                self.live[key] = (reference, number, size)
            return number
        number, self.count = self.count, self.count + 1

        def gone(_: Any) -> None:
            last = self.live.pop(key, None)
            self.made_in_forward.discard(number)
            if last is not None:
                self.events.append((number, -last[2], self.phase))

        self.live[key] = (weakref.ref(storage, gone), number, size)
        self.events.append((number, size, self.phase))
        if self.phase == "forward":
            self.made_in_forward.add(number)
        return number


class DryWatcher:
    """Keeps the log of a training under fake tensors.

    Parameters
    ----------
    mode
        The `FakeTensorMode` that is on.
    """

    def __init__(self, mode: Any) -> None:
        self.mode, self.log, self.operators = mode, StorageLog(), OperatorCounts()
        self.batch_was_real = False
        self.recurrent: set[str] = set()
        self.unit_bytes: tuple[int, ...] = ()

    def enter(self, phase: str) -> None:
        """A phase begins."""
        self.log.phase = phase
        if phase == "forward":
            self.log.made_in_forward.clear()

    def own(self, model: Any) -> Any:
        """The model itself if it was made under the mode, else a copy without its values."""
        import torch  # noqa: PLC0415
        from torch._subclasses import fake_tensor  # noqa: PLC0415

        kinds = {type(module) for module in model.modules()}
        if any(kind.__name__ == "OptimizedModule" for kind in kinds):
            reason = "the model is compiled, and what compiled code allocates is not known without running it"
            raise CannotTrainError(reason, "a model_fn without torch.compile")
        self.recurrent = {f"torch.nn.{kind.__name__}" for kind in kinds if issubclass(kind, torch.nn.RNNBase)}
        tensors = [*model.parameters(), *model.buffers()]
        self.unit_bytes = unit_bytes(model)
        if all(isinstance(one, fake_tensor.FakeTensor) for one in tensors):
            return model
        self.log.is_paused = True
        try:
            with fake_tensor.unset_fake_temporarily(), fake_tensor.FakeCopyMode(self.mode):
                return copy.deepcopy(model)
        finally:
            self.log.is_paused = False

    def batch(self, functions: ModelFunctions, setup: TrainingSetup) -> Any:
        """A batch without values; where `batch_fn` needs values it runs for real, and its result is copied."""
        import torch  # noqa: PLC0415
        from torch._subclasses import fake_tensor  # noqa: PLC0415
        from torch.utils._pytree import tree_map_only  # noqa: PLC0415

        arguments = setup.batch_arguments()
        try:
            batch = functions.batch_fn(*arguments)
        except (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException):
            self.batch_was_real = self.log.is_paused = True
            try:
                with fake_tensor.unset_fake_temporarily():
                    batch = functions.batch_fn(*arguments)
            finally:
                self.log.is_paused = False
        batch = tree_map_only(torch.Tensor, self._faked, batch)
        self.holds("input", tensors_in(batch))
        return batch

    def _faked(self, tensor: Any) -> Any:
        from torch._subclasses.fake_tensor import FakeTensor  # noqa: PLC0415

        return tensor if isinstance(tensor, FakeTensor) else self.mode.from_tensor(tensor)

    def holds(self, category: str, tensors: Iterable[Any]) -> None:
        """What these tensors are; what holds a parameter stays one."""
        for tensor in tensors:
            number = self.log.see(tensor)
            if self.log.category.get(number) not in _KEPT:
                self.log.category[number] = category
            if category == "optimizer_state" and tensor.dim() == 0:
                self.log.scalars.add(number)

    def forward_ends(self) -> None:
        """What was made in forward and is still there are activations."""
        for number in self.log.made_in_forward:
            self.log.category.setdefault(number, "activation")


def tracking_mode(watcher: DryWatcher) -> Any:
    """A dispatch mode of torch that tells a watcher of every operator's results."""
    import torch  # noqa: PLC0415
    from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC0415
    from torch.utils._pytree import tree_leaves  # noqa: PLC0415

    log, see, count = watcher.log, watcher.log.see, watcher.operators.count

    class Tracking(TorchDispatchMode):  # type: ignore[misc] # torch is not followed, see pyproject.toml
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            results = operator(*args, **(kwargs or {}))
            if log.is_paused:
                return results
            count(operator, is_narrow=isinstance(results, torch.Tensor) and results.element_size() <= _NARROW_BYTES)
            for one in tree_leaves(results):
                if isinstance(one, torch.Tensor):
                    see(one)
            return results

    return Tracking()
