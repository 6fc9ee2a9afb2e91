"""What a dry run trains: the user's four functions, and the knobs that are set on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from perfnb.prediction import Unknown
from perfnb.whatif.dry_run_optimizers import EIGHT_BIT

OPTIMIZERS: Final = MappingProxyType(
    {
        "sgd": ("SGD", {}),
        "momentum": ("SGD", {"momentum": 0.9}),
        "adam": ("Adam", {}),
        "adamw": ("AdamW", {}),
        "nadam": ("NAdam", {}),
        "radam": ("RAdam", {}),
        "adamax": ("Adamax", {}),
        "adagrad": ("Adagrad", {}),
        "adadelta": ("Adadelta", {}),
        "rmsprop": ("RMSprop", {}),
        "rprop": ("Rprop", {}),
    }
)
"""Word of the knob optimizer to the class of torch.optim and its arguments; the rate takes no memory."""

AUTOCAST: Final = MappingProxyType({"bf16": "bfloat16", "fp16": "float16"})
"""Precision under autocast to its dtype."""

DEFAULT_DTYPE: Final = MappingProxyType({"pure_bf16": "bfloat16", "pure_fp16": "float16", "fp64": "float64"})
"""Precision of everything to the default dtype while model and batch are made."""

_PRECISIONS: Final = ("fp32", *AUTOCAST, *DEFAULT_DTYPE)
_IMPLEMENTATIONS: Final = ("loop", "foreach", "fused")
_KNOBS: Final = MappingProxyType(
    {
        "batch_size": "a number of samples, 1 or more",
        "sequence_length": "a number of tokens, 1 or more",
        "precision": f"one of {', '.join(_PRECISIONS)}",
        "activation_checkpointing": "none, full, or the names of modules, such as ('blocks.0', 'blocks.1')",
        "optimizer": ", ".join((*OPTIMIZERS, *EIGHT_BIT)),
        "optimizer_implementation": f"one of {', '.join(_IMPLEMENTATIONS)}",
        "gradient_accumulation_steps": "a number of micro-batches, 1 or more",
        "zero_stage": "0, 1, 2 or 3 (3: also FSDP with full sharding)",
        "world_size": "a number of ranks, 1 or more",
        "gradient_as_bucket_view": "True or False",
    }
)
KNOBS_OF_DRY_RUN: Final = frozenset(_KNOBS)
"""Knobs whose effect on memory a dry run tells."""

_VALUES: Final = MappingProxyType(
    {"precision": _PRECISIONS, "optimizer_implementation": _IMPLEMENTATIONS, "optimizer": (*OPTIMIZERS, *EIGHT_BIT)}
)
_LAST_STAGE: Final = 3


@dataclass(frozen=True, slots=True)
class ModelFunctions:
    """A training as four functions, in place of the user's loop, which reads values.

    Attributes
    ----------
    model_fn
        Called as `model_fn()`: the model, on the CPU.
    batch_fn
        Called as `batch_fn(batch_size)`, or `batch_fn(batch_size, sequence_length)` where a sequence length is given: one batch,
        of whatever form, on the CPU.
    loss_fn
        Called as `loss_fn(model, batch)`: the loss, a tensor with one value.
    optimizer_fn
        Called as `optimizer_fn(parameters)`: the optimizer.
    """

    model_fn: Callable[[], Any]
    batch_fn: Callable[..., Any]
    loss_fn: Callable[[Any, Any], Any]
    optimizer_fn: Callable[[Iterable[Any]], Any]


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """Values of the knobs that a dry run knows; None: as the user's functions have it.

    Attributes
    ----------
    batch_size
        Samples of one micro-batch.
    sequence_length
        Second argument of `batch_fn`.
    precision
        fp32: as the model is made; bf16, fp16: autocast; pure_bf16, pure_fp16, fp64: default dtype of model and batch.
    activation_checkpointing
        none; full: each of the repeated blocks; or names of modules.
    optimizer, optimizer_implementation
        In place of the user's own.
    gradient_accumulation_steps
        Micro-batches of a step.
    zero_stage, world_size, gradient_as_bucket_view
        What the ranks share out, how many there are, and whether gradients are views of the buckets of DistributedDataParallel.
    """

    batch_size: int
    sequence_length: int | None = None
    precision: str = "fp32"
    activation_checkpointing: str | tuple[str, ...] = "none"
    optimizer: str | None = None
    optimizer_implementation: str | None = None
    gradient_accumulation_steps: int = 1
    zero_stage: int = 0
    world_size: int = 1
    gradient_as_bucket_view: bool = False

    @property
    def size(self) -> int:
        """What a batch grows in: samples times tokens."""
        return self.batch_size * (self.sequence_length or 1)

    def batch_arguments(self) -> tuple[int, ...]:
        """Arguments of `batch_fn`."""
        return (self.batch_size,) if self.sequence_length is None else (self.batch_size, self.sequence_length)

    def with_batch(self, batch_size: int, sequence_length: int | None = None) -> TrainingSetup:
        """The same with another batch; its sequence length stays where none is given."""
        return replace(self, batch_size=batch_size, sequence_length=sequence_length or self.sequence_length)


def setup_from(config: Mapping[str, Any]) -> TrainingSetup | Unknown:
    """The setup that a config describes; Unknown where it holds a knob or a value that no dry run knows.

    Examples
    --------
    >>> setup_from({"batch_size": 8, "precision": "bf16"}).precision
    'bf16'
    >>> setup_from({"batch_size": 8, "optimizer": "adafactor"}).needs
    'an optimizer_fn that makes it, without the knob; or one of sgd, momentum, adam, adamw, nadam, radam, adamax, adagrad, ...'
    """
    strange = [name for name in config if name not in _KNOBS]
    if strange:
        return Unknown(f"no dry run knows the knob {', '.join(map(str, strange))}", f"one of {', '.join(_KNOBS)}")
    if "batch_size" not in config:
        return Unknown("the batch size is not given", "config={'batch_size': ...}, as the training has it now")
    values = {name: value for name, value in config.items() if value is not None}
    checkpointing = values.get("activation_checkpointing", "none")
    if isinstance(checkpointing, (list, tuple)) and all(isinstance(name, str) for name in checkpointing):
        values["activation_checkpointing"] = tuple(checkpointing)
    wrong = next((name for name, value in values.items() if not _is_known(name, value)), None)
    if wrong == "optimizer":
        some = ", ".join(list(OPTIMIZERS)[:8])
        needs = f"an optimizer_fn that makes it, without the knob; or one of {some}, ..."
        return Unknown(f"a dry run cannot make the optimizer {values['optimizer']!r}", needs)
    if wrong is not None:
        return Unknown(f"{wrong} is {values[wrong]!r}", _KNOBS[wrong])
    if values.get("zero_stage") and "world_size" not in values:
        return Unknown("among how many ranks the memory is shared out is not given", "world_size in the config")
    return TrainingSetup(**values)


def _is_known(name: str, value: Any) -> bool:
    """Whether a knob may have this value."""
    if name == "gradient_as_bucket_view":
        return isinstance(value, bool)
    if name == "activation_checkpointing":
        return isinstance(value, tuple) or value in ("none", "full")
    if name in _VALUES:
        return isinstance(value, str) and value in _VALUES[name]
    least, most = (0, _LAST_STAGE) if name == "zero_stage" else (1, None)
    return type(value) is int and value >= least and (most is None or value <= most)
