"""A few training steps made of the user's four functions, told phase by phase to whoever watches: dry, or for real."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol

from perfnb.errors import PerfnbError
from perfnb.whatif.dry_run_optimizers import EIGHT_BIT, eight_bit_adam
from perfnb.whatif.dry_run_setup import AUTOCAST, DEFAULT_DTYPE, OPTIMIZERS, ModelFunctions, TrainingSetup

PHASES: Final = ("init", "data", "forward", "backward", "optimizer")
"""What a step is made of; init: before the first."""

STEPS: Final = 2
"""Steps that are run: the first makes the optimizer's state, the second holds it."""


class CannotTrainError(PerfnbError):
    """The functions do not make a training that a dry run knows: `reason`, and what it `needs`."""

    def __init__(self, reason: str, needs: str) -> None:
        super().__init__(reason, needs)
        self.reason, self.needs = reason, needs

    def __str__(self) -> str:
        """What is wrong and what to do."""
        return f"{self.reason}; it needs {self.needs}"


class Watcher(Protocol):
    """Whoever is told where the training stands."""

    def enter(self, phase: str) -> None:
        """A phase begins."""

    def own(self, model: Any) -> Any:
        """The model to train in place of this one: the user's own objects are left alone."""

    def batch(self, functions: ModelFunctions, setup: TrainingSetup) -> Any:
        """A batch."""

    def holds(self, category: str, tensors: Iterable[Any]) -> None:
        """What these tensors are."""

    def forward_ends(self) -> None:
        """What was made in forward and is still there are activations."""


def train(functions: ModelFunctions, setup: TrainingSetup, watcher: Watcher, *, is_for_cuda: bool) -> None:
    """Run the steps.

    Gradients are set to None, loss and batch dropped at the end of each step.

    Parameters
    ----------
    functions, setup
        What to train.
    watcher
        Is told of every phase.
    is_for_cuda
        Whether the optimizer takes the form that torch chooses by itself for CUDA tensors.
    """
    import torch  # noqa: PLC0415 - analysis of files runs without it

    watcher.enter("init")
    if isinstance(functions.model_fn, torch.nn.Module):
        reason = f"model_fn is a model ({type(functions.model_fn).__name__}), not a function that makes one"
        raise CannotTrainError(reason, "model_fn=lambda: Model(...)")
    with _default_dtype(setup):
        model = watcher.own(functions.model_fn())
    _checkpoint(model, setup.activation_checkpointing)
    parameters = list(model.parameters())
    watcher.holds("parameter", parameters)
    watcher.holds("buffer", model.buffers())
    optimizer = _optimizer(functions, setup, [one for one in parameters if one.requires_grad], is_for_cuda=is_for_cuda)
    micro_batches = setup.gradient_accumulation_steps
    for _ in range(STEPS):
        for _ in range(micro_batches):
            watcher.enter("data")
            with _default_dtype(setup):
                batch = watcher.batch(functions, setup)
            watcher.enter("forward")
            with _autocast(setup):
                loss = functions.loss_fn(model, batch)
                if micro_batches > 1 and isinstance(loss, torch.Tensor):
                    loss = loss / micro_batches
            _expect_loss(loss)
            watcher.forward_ends()
            watcher.enter("backward")
            loss.backward()
            watcher.holds("gradient", (one.grad for one in parameters if one.grad is not None))
            del loss, batch
        watcher.enter("optimizer")
        optimizer.step()
        watcher.holds("optimizer_state", tensors_in([dict(state) for state in optimizer.state.values()]))
        optimizer.zero_grad(set_to_none=True)
        for one in parameters:  # those that the optimizer does not have
            one.grad = None


def _expect_loss(loss: Any) -> None:
    import torch  # noqa: PLC0415

    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        reason = f"loss_fn returned {what}"
        raise CannotTrainError(reason, "a loss_fn that returns the loss as a tensor with one value")


def tensors_in(value: Any) -> Iterator[Any]:
    """The tensors of a batch, of an optimizer's state or of any other nest of containers and objects with fields."""
    import torch  # noqa: PLC0415
    from torch.utils._pytree import tree_leaves  # noqa: PLC0415

    for leaf in tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, type):
            yield from (one for one in vars(leaf).values() if isinstance(one, torch.Tensor))


def owned_elsewhere(model: Any, own_references: int) -> bool:
    """Whether someone else holds the model as well: `model_fn` gave one that exists already."""
    return sys.getrefcount(model) > own_references


def copied(model: Any) -> Any:
    """A copy to train."""
    return copy.deepcopy(model)


@contextlib.contextmanager
def _default_dtype(setup: TrainingSetup) -> Iterator[None]:
    import torch  # noqa: PLC0415

    if setup.precision not in DEFAULT_DTYPE:
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, DEFAULT_DTYPE[setup.precision]))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _autocast(setup: TrainingSetup) -> contextlib.AbstractContextManager[Any]:
    import torch  # noqa: PLC0415

    if setup.precision not in AUTOCAST:
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = torch.autocast("cpu", dtype=getattr(torch, AUTOCAST[setup.precision]))
    return context


def _optimizer(functions: ModelFunctions, setup: TrainingSetup, parameters: list[Any], *, is_for_cuda: bool) -> Any:
    import torch  # noqa: PLC0415

    if setup.optimizer is None:
        optimizer = functions.optimizer_fn(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            reason = f"optimizer_fn returned {type(optimizer).__name__}, no optimizer of torch"
            raise CannotTrainError(reason, "an optimizer_fn such as lambda parameters: torch.optim.AdamW(parameters)")
    elif setup.optimizer in EIGHT_BIT:
        optimizer = eight_bit_adam(parameters)
    else:
        name, arguments = OPTIMIZERS[setup.optimizer]
        optimizer = getattr(torch.optim, name)(parameters, lr=1e-3, **arguments)
    wanted = setup.optimizer_implementation
    for group in optimizer.param_groups:
        if wanted is not None:
            if wanted != "loop" and wanted not in group:
                reason = f"{type(optimizer).__name__} has no {wanted} form"
                raise CannotTrainError(reason, "optimizer_implementation loop, or another optimizer")
            group.update({name: name == wanted for name in ("foreach", "fused") if name in group})
        elif is_for_cuda and group.get("foreach", False) is None and not group.get("fused"):
            # torch/optim/optimizer.py, _default_to_fused_or_foreach: foreach where all tensors are on CUDA
            group["foreach"] = True
    return optimizer


def unit_bytes(model: Any) -> tuple[int, ...]:
    """Bytes of the parameters of each of the repeated blocks and of all the rest, the largest first; empty without blocks.

    That is how FSDP is wrapped round a model of blocks: each is a unit, and the root holds the rest.
    """
    try:
        blocks = _blocks(model, "full")
    except CannotTrainError:
        return ()
    sizes = [{id(one): one.numel() * one.element_size() for one in block.parameters()} for block in blocks]
    own = {key for each in sizes for key in each}
    rest = sum(one.numel() * one.element_size() for one in model.parameters() if id(one) not in own)
    return tuple(sorted((rest, *(sum(each.values()) for each in sizes)), reverse=True))


def _checkpoint(model: Any, wanted: str | tuple[str, ...]) -> None:
    """Recompute some modules in backward instead of keeping their activations."""
    if wanted == "none":
        return
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

    def recomputed(forward: Any) -> Any:
        def run(*arguments: Any, **named: Any) -> Any:
            return checkpoint(forward, *arguments, use_reentrant=False, **named)

        return run

    for block in _blocks(model, wanted):
        block.forward = recomputed(block.forward)


def _blocks(model: Any, wanted: str | tuple[str, ...]) -> list[Any]:
    """Modules that were named; else the repeated ones of the outermost list of at least two of one class."""
    modules = dict(model.named_modules())
    if wanted != "full":
        strange = [name for name in wanted if name not in modules]
        if strange:
            some = ", ".join(name for name in list(modules)[1:9])
            reason = f"the model has no module {', '.join(strange)}"
            raise CannotTrainError(reason, f"names of its modules, such as {some}")
        return [modules[name] for name in wanted]
    import torch  # noqa: PLC0415

    for module in modules.values():
        children = list(module.children())
        kinds = {type(child) for child in children}
        is_list = isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential))
        if is_list and len(children) > 1 and len(kinds) == 1 and all(any(True for _ in child.parameters()) for child in children):
            return children
    reason = "the model has no list of blocks of one class, so what to recompute in backward is not known"
    raise CannotTrainError(reason, "activation_checkpointing with the names of modules, such as ('encoder', 'decoder')")
