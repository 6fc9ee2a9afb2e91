"""Squares of gradients where a training has them anyway: of a first micro-batch and of all, or of each rank and of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import pandas as pd

from perfnb.errors import ProbeRefused
from perfnb.training.noise_scale import COLUMNS
from perfnb.training.probe_ranks import is_distributed
from perfnb.training.probe_state import is_module

Log = Callable[..., None]

_TOO_FEW = "the squares take two micro-batches per optimizer step, or two ranks under DistributedDataParallel"


class GradientSquares:
    """Looks at gradients as they are made, without a backward pass of its own and without waiting for a device.

    With accumulation, gradients are read when the first and the last micro-batch of a step have been added: before unscaling and
    clipping, so that only the ratio of the two squares counts under a gradient scaler. A mean over micro-batches is expected:
    each loss divided by their number. With DistributedDataParallel a communication hook reads each bucket before and after its
    all-reduce; a model has room for one such hook only.

    Parameters
    ----------
    model
        The module, or a DistributedDataParallel.
    optimizer
        Its step ends a step.
    batch_size
        Samples of a step on this rank, all micro-batches.
    log
        Called as `log(micro_gradient_square=..., gradient_square=...)` after each step, such as `recorder.log`, which does not
        wait for tensors either. Left out, `frame()` has the values.

    Raises
    ------
    ProbeRefused
        If the model is no module.
    """

    def __init__(self, model: Any, optimizer: Any, *, batch_size: float, log: Log | None = None) -> None:
        if not is_module(model):
            message = f"gradient squares are taken from a torch.nn.Module, not from a {type(model).__name__}"
            raise ProbeRefused(message)
        self._log, self._batch = log, float(batch_size)
        self._rows: list[tuple[int, int, Any, Any]] = []
        self._step = 0
        self._expected = 0
        self._counts: dict[int, int] = {}
        self._first: Any = 0.0
        self._whole: Any = 0.0
        self._ranks = _world() if _is_ddp(model) and is_distributed() else 1
        if self._ranks > 1:
            # torch refuses a hook whose annotation is not its own class: a lambda has none
            model.register_comm_hook(None, lambda state, bucket: self._bucket(state, bucket))  # noqa: PLW0108 - for that
            self._hooks = []
        else:
            parameters = [each for each in model.parameters() if each.requires_grad]
            self._hooks = [each.register_post_accumulate_grad_hook(self._added) for each in parameters]
        self._hooks.append(optimizer.register_step_post_hook(self._stepped))

    def __enter__(self) -> GradientSquares:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Look no longer."""
        self.close()

    def close(self) -> None:
        """Look no longer; a communication hook of DistributedDataParallel cannot be taken back and goes on reducing."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def frame(self) -> pd.DataFrame:
        """What was seen, as rows of the table `training`.

        Returns
        -------
        pandas.DataFrame
            One row per step: rank (0, for all), step, batch_size, micro_batches, micro_gradient_square, gradient_square, and
            parts_seen (gradients behind the mean square: one with accumulation, else one per rank).

        Raises
        ------
        ProbeRefused
            If no step had two micro-batches or ranks.
        """
        if not self._rows:
            message = f"no step had any to compare: {_TOO_FEW}"
            raise ProbeRefused(message)
        batch = self._batch * self._ranks
        rows = [(0, step, batch, parts, float(micro), float(whole), self._ranks) for step, parts, micro, whole in self._rows]
        return pd.DataFrame(rows, columns=["rank", "step", *COLUMNS, "parts_seen"])

    def _added(self, parameter: Any) -> None:
        """A micro-batch has been added to a parameter's gradient."""
        count = self._counts.get(id(parameter), 0) + 1
        self._counts[id(parameter)] = count
        if count == 1:
            self._first = self._first + _square(parameter.grad)
        if count == self._expected:
            self._whole = self._whole + _square(parameter.grad)

    def _bucket(self, _: Any, bucket: Any) -> Any:
        import torch.distributed as dist  # noqa: PLC0415 - only where it is used

        local = bucket.buffer()
        self._first = self._first + _square(local)
        local.div_(self._ranks)

        def reduced(future: Any) -> Any:
            total = future.value()[0]
            self._whole = self._whole + _square(total)
            return total

        return dist.all_reduce(local, async_op=True).get_future().then(reduced)

    def _stepped(self, *_: object) -> None:
        parts = self._ranks if self._ranks > 1 else max(self._counts.values(), default=0)
        if parts > 1 and (self._ranks > 1 or parts == self._expected):
            micro = self._over_ranks(self._first) if self._ranks > 1 else self._first * parts**2
            self._rows.append((self._step, parts, micro, self._whole))
            if self._log is not None:
                self._log(micro_gradient_square=micro, gradient_square=self._whole)
        self._step += 1
        self._expected = parts  # the first step only counts
        self._counts.clear()
        self._first = self._whole = 0.0

    def _over_ranks(self, square: Any) -> Any:
        import torch.distributed as dist  # noqa: PLC0415 - only where it is used

        mean = square / self._ranks
        dist.all_reduce(mean)
        return mean


def _square(gradient: Any) -> Any:
    return gradient.detach().float().pow(2).sum()


def _is_ddp(model: Any) -> bool:
    return any(each.__name__ == "DistributedDataParallel" for each in type(model).__mro__)


def _world() -> int:
    import torch.distributed as dist  # noqa: PLC0415 - only where it is used

    return int(dist.get_world_size()) if dist.is_available() and dist.is_initialized() else 1
