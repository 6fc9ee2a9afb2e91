"""Which modules to checkpoint: what each keeps for backward, and what making it again would cost, from one dry forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pandas as pd

from perfnb.prediction import Unknown
from perfnb.whatif.dry_run import MemoryModel
from perfnb.whatif.dry_run_refusals import refusal
from perfnb.whatif.dry_run_setup import ModelFunctions, TrainingSetup, setup_from
from perfnb.whatif.dry_run_step import CannotTrainError, tensors_in, train
from perfnb.whatif.dry_run_trace import quiet
from perfnb.whatif.dry_run_tracker import DryWatcher, tracking_mode

FLOPS_PER_S: Final = 989e12  # NVIDIA H100 SXM, data sheet: dense bfloat16 products
BYTES_PER_S: Final = 3.35e12  # the same: HBM3
MEASURED: Final = 3

_COLUMNS: Final = (
    "module",
    "kind",
    "kept_bytes",
    "saved_bytes",
    "forward_flops",
    "forward_bytes",
    "recompute_us",
    "saved_bytes_per_us",
    "peak_bytes",
)


def checkpoint_candidates(
    model: MemoryModel,
    *,
    flops_per_s: float = FLOPS_PER_S,
    bytes_per_s: float = BYTES_PER_S,
    measured: int = MEASURED,
) -> pd.DataFrame | Unknown:
    """What checkpointing each module alone would save, and the time to compute it again; most bytes per time first.

    Savings of several modules do not simply add up, and one inside another is in both: ask
    `model.estimate({"activation_checkpointing": (names...)})` for a choice of them.

    Parameters
    ----------
    model
        `perfnb.MemoryModel(...)` of the training; its own checkpointing is left out.
    flops_per_s, bytes_per_s
        Of the device: an operator takes at least as long as its products or its memory traffic do. By default an H100's, so that
        the times are a lower bound; the order hardly depends on the device.
    measured
        For how many, from the top, the peak with this module checkpointed is found by a dry run of its own.

    Returns
    -------
    pandas.DataFrame
        One row per module that would save anything: module, kind (its class), kept_bytes (made in its forward and kept for
        backward), saved_bytes (those less its own results, which stay), forward_flops, forward_bytes (read and written),
        recompute_us, saved_bytes_per_us, peak_bytes (of the training with it checkpointed; NA where not asked for). Unknown where
        the dry run cannot be made.
    """
    setup = setup_from({**model.config, "activation_checkpointing": "none", "gradient_accumulation_steps": 1})
    if isinstance(setup, Unknown):
        return setup
    found = _costs(model.functions, replace(setup, world_size=1, zero_stage=0))
    if isinstance(found, Unknown):
        return found
    rows = []
    for name, one in found.items():
        if one.saved_bytes <= 0:
            continue
        time_us = 1e6 * sum(max(flops / flops_per_s, size / bytes_per_s) for flops, size in one.operators)
        flops, size = (sum(each) for each in zip(*one.operators, strict=True))
        rows.append((name, one.kind, one.kept_bytes, one.saved_bytes, flops, size, time_us, one.saved_bytes / time_us, None))
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).sort_values("saved_bytes_per_us", ascending=False, kind="stable")
    peaks: list[int | None] = []
    for name in table["module"].head(measured):
        made = model.estimate({"activation_checkpointing": (name,)})
        peaks.append(None if isinstance(made, Unknown) else made.peak_bytes)
    peaks += [None] * (len(table) - len(peaks))
    return table.assign(peak_bytes=pd.array(peaks, dtype="Int64")).reset_index(drop=True)


@dataclass(slots=True)
class _Module:
    """What one module's forward did: bytes that stay, and FLOP and bytes of each operator."""

    kind: str
    kept_bytes: int = 0
    saved_bytes: int = 0
    operators: list[tuple[float, float]] = field(default_factory=list)
    outputs: set[int] = field(default_factory=set)


class _Watcher(DryWatcher):
    """Keeps which module made what, in the last forward."""

    def __init__(self, mode: Any) -> None:
        super().__init__(mode)
        self.modules: dict[str, _Module] = {}
        self.inside: list[str] = []
        self.made_by: dict[int, tuple[str, ...]] = {}

    def own(self, model: Any) -> Any:
        own = super().own(model)
        for name, module in own.named_modules():
            if name:
                module.register_forward_pre_hook(self._enters(name, type(module).__name__))
                module.register_forward_hook(self._leaves(name))
        return own

    def enter(self, phase: str) -> None:
        super().enter(phase)
        if phase == "forward":
            self.modules.clear()
            self.made_by.clear()
            self.inside.clear()

    def forward_ends(self) -> None:
        """Sum up what is still there, by each module that it was made in."""
        super().forward_ends()
        sizes = {number: size for _, number, size in self.log.live.values()}
        for number, names in self.made_by.items():
            if number in self.log.made_in_forward and number in sizes:
                for name in names:
                    one = self.modules[name]
                    one.kept_bytes += sizes[number]
                    one.saved_bytes += sizes[number] * (number not in one.outputs)

    def ran(self, cost: tuple[float, float], results: Iterable[Any]) -> None:
        """An operator ran."""
        if self.log.phase != "forward" or not self.inside:
            return
        names = tuple(dict.fromkeys(self.inside))
        for name in names:
            self.modules[name].operators.append(cost)
        for one in results:
            number = self.log.see(one)
            if number in self.log.made_in_forward:
                self.made_by.setdefault(number, names)

    def _enters(self, name: str, kind: str) -> Callable[..., None]:
        def enters(*_: Any) -> None:
            if self.log.phase == "forward":
                self.modules.setdefault(name, _Module(kind))
                self.inside.append(name)

        return enters

    def _leaves(self, name: str) -> Callable[..., None]:
        def leaves(_module: Any, _inputs: Any, output: Any) -> None:
            if self.log.phase == "forward" and self.inside and self.inside[-1] == name:
                self.inside.pop()
                self.modules[name].outputs.update(self.log.see(one) for one in tensors_in(output))

        return leaves


def _costs(functions: ModelFunctions, setup: TrainingSetup) -> dict[str, _Module] | Unknown:
    """Name to what a module's forward keeps and costs."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415 - analysis of files runs without it

    mode = FakeTensorMode()
    mode.__deepcopy__ = lambda _: mode
    watcher = _Watcher(mode)
    try:
        with quiet(), mode, tracking_mode(watcher), _costing_mode(watcher):
            train(functions, setup, watcher, is_for_cuda=False)
    except CannotTrainError as error:
        return Unknown(error.reason, error.needs)
    except Exception as error:
        found = refusal(error, watcher.log.phase, None)
        if found is None:
            raise
        return found
    return watcher.modules


def _costing_mode(watcher: _Watcher) -> Any:
    """A dispatch mode that tells FLOP (torch's own formulas) and bytes of every operator."""
    import torch  # noqa: PLC0415
    from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC0415
    from torch.utils._pytree import tree_leaves  # noqa: PLC0415
    from torch.utils.flop_counter import flop_registry  # noqa: PLC0415

    def of_bytes(values: Any) -> int:
        return sum(one.numel() * one.element_size() for one in tree_leaves(values) if isinstance(one, torch.Tensor))

    class Costing(TorchDispatchMode):  # type: ignore[misc] # torch is not followed, see pyproject.toml
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            results = operator(*args, **(kwargs or {}))
            made = [one for one in tree_leaves(results) if isinstance(one, torch.Tensor)]
            is_view = all(one._is_view() for one in made)  # noqa: SLF001 - a view moves nothing
            formula = flop_registry.get(operator._overloadpacket)  # noqa: SLF001 - as torch's own counter finds it
            flops = formula(*args, **(kwargs or {}), out_val=results) if formula is not None else 0
            watcher.ran((float(flops), 0.0 if is_view else float(of_bytes((args, kwargs)) + of_bytes(results))), made)
            return results

    return Costing()
