"""What a model's own layers and its optimizer cost on this machine in other types, layouts and implementations."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from perfnb.record.machine_probe_timing import Constant, alternated, constant, quotient

COVERED: Final = 0.9  # whatif contract, section 7: the shapes of the top 90 %
MOST_SHAPES: Final = 12
_MOST_UPDATED_BYTES: Final = 256 << 20
_KINDS: Final = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "adagrad": "Adagrad"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer or a convolution as one batch meets it: sizes of its weight and input, and what it is called with."""

    weight: tuple[int, ...]
    given: tuple[int, ...]
    settings: tuple[Any, ...] = ()

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution of images."""
        return len(self.weight) > 2  # noqa: PLR2004 - outputs, inputs, and the filter's sides


def layers_of(torch: Any, model: Any, batch: Any) -> Counter[Layer]:
    """Linear layers and convolutions of images that one batch meets, each with its FLOP as its count; nothing is trained.

    The model runs forward once in evaluation mode, without gradients, and is put back into the mode it was in.
    """
    found: Counter[Layer] = Counter()

    def seen(module: Any, given: Any, made: Any) -> None:
        weight, inputs = tuple(module.weight.shape), tuple(given[0].shape)
        settings: tuple[Any, ...] = ()
        flops = 2.0 * given[0].numel() * weight[0]
        if isinstance(module, torch.nn.Conv2d):
            settings = (module.stride, module.padding, module.dilation, module.groups)
            flops = 2.0 * made.numel() * module.weight[0].numel()
        found[Layer(weight, inputs, settings)] += int(flops)

    chosen = [each for each in model.modules() if isinstance(each, torch.nn.Linear | torch.nn.Conv2d)]
    hooks = [each.register_forward_hook(seen) for each in chosen]
    modes = [(each, each.training) for each in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            called(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    return found


def layer_constants(torch: Any, layers: Counter[Layer], longest_s: float) -> dict[str, Constant]:
    """Time of the layers, forward and backward, in float32, and the share of it that other types and layouts take.

    Of the layers those that make up 90 % of the FLOP are timed, each way in turn; the sum stands for all.
    """
    chosen, total, done = [], sum(layers.values()), 0
    for layer, flops in layers.most_common(MOST_SHAPES):
        chosen.append(layer)
        done += flops
        if done >= COVERED * total:
            break
    sums: dict[str, list[float]] = {}
    images: dict[str, list[float]] = {}
    for layer in chosen:
        times = alternated(_ways(torch, layer), longest_s / len(chosen))
        for name, seconds in times.items():
            sums[name] = _added(sums.get(name), seconds)
            if layer.is_convolution:
                images[name] = _added(images.get(name), seconds)
    if not sums:
        return {}
    scale = total / done
    microseconds = [1e6 * scale * each for each in sums["fp32"]]
    found = {"layers.fp32.us": constant(microseconds, 1.0), "layers.bf16.ratio": quotient(sums["bf16"], sums["fp32"])}
    if images:
        found["layers.convolutions.fp32.us"] = constant([1e6 * scale * each for each in images["fp32"]], 1.0)
        found["layers.channels_last.ratio"] = quotient(images["channels_last"], images["fp32"])
    return found


def update_constants(torch: Any, parameters: Any, kind: str, longest_s: float) -> dict[str, Constant]:
    """Share of a loop's time that the other implementations of an optimizer take, on tensors of the parameters' sizes.

    Nothing where torch has no fused one of this kind, or copies of the parameters would take too much memory.
    """
    sizes = [tuple(each.shape) for each in parameters if each.requires_grad]
    elements = sum(int(torch.Size(size).numel()) for size in sizes)
    if kind not in _KINDS or not sizes or 4 * elements > _MOST_UPDATED_BYTES:
        return {}
    make = getattr(torch.optim, _KINDS[kind])
    calls: dict[str, Callable[[], Any]] = {}
    for name, flags in {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}.items():
        copies = [torch.zeros(size, requires_grad=True) for size in sizes]
        for copy in copies:
            copy.grad = torch.full_like(copy, 1e-3)
        more = {"momentum": 0.9} if kind == "sgd" else {}
        calls[name] = make(copies, lr=1e-3, **more, **flags).step
    times = alternated(calls, longest_s)
    scale = [1e6 * each for each in times["loop"]]
    found = {"update.loop.us": constant(scale, 1.0)}
    for name in ("foreach", "fused"):
        found[f"update.{name}.ratio"] = quotient(times[name], times["loop"])
    return found


def _ways(torch: Any, layer: Layer) -> Mapping[str, Callable[[], Any]]:
    weight, given = torch.randn(layer.weight), torch.randn(layer.given)

    def run(weight: Any, given: Any, *, is_narrow: bool) -> Any:
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_narrow):
            if layer.is_convolution:
                stride, padding, dilation, groups = layer.settings
                made = torch.nn.functional.conv2d(given, weight, None, stride, padding, dilation, groups)
            else:
                made = torch.nn.functional.linear(given, weight)
            gradient = torch.ones_like(made)
        return torch.autograd.grad(made, (weight, given), gradient)

    def way(*, layout: Any = torch.preserve_format, is_narrow: bool = False) -> Callable[[], Any]:
        tensors = [each.clone(memory_format=layout).requires_grad_() for each in (weight, given)]
        return lambda: run(*tensors, is_narrow=is_narrow)

    ways = {"fp32": way(), "bf16": way(is_narrow=True)}
    if layer.is_convolution:
        ways["channels_last"] = way(layout=torch.channels_last)
    return ways


def called(model: Any, batch: Any) -> Any:
    """What the model makes of what a loader gives: a mapping by name, a tuple by place (inputs first), or a tensor."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        try:
            return model(batch[0])
        except TypeError:  # a model of several inputs
            return model(*batch)
    return model(batch)


def _added(sums: list[float] | None, more: list[float]) -> list[float]:
    return list(more) if sums is None else [one + other for one, other in itertools.zip_longest(sums, more, fillvalue=more[-1])]
