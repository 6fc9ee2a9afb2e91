"""What breaks a dry run, and what to pass instead: an error of torch's fake tensors in the user's words."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import MappingProxyType
from typing import Final

from perfnb.prediction import Unknown
from perfnb.safe_text import clean

_MEASURED: Final = "or allow_real_run=True, which measures two small steps on the CPU"

OPTIMIZERS_THAT_READ: Final = MappingProxyType(
    {
        "LBFGS": "it calls the loss as often as its line search needs",
        "SparseAdam": "it needs sparse gradients, whose size depends on the batch's values",
        "Adafactor": "it reads values of its gradients",
        "ASGD": "it reads values of its state",
    }
)
"""Optimizers of torch.optim that no dry run can step, and why."""

_BY_TEXT: Final = (
    (
        ".numpy() is not supported",
        "values are read by .numpy()",
        "work on tensors there, and move what only logs out of it",
    ),
    (
        "Couldn't swap",
        "the model's dtype is changed after it was made (model.to(dtype), .half(), .bfloat16())",
        "precision pure_bf16 or pure_fp16 in its place, which makes the model in that dtype",
    ),
    (
        "Please convert all Tensors to FakeTensors",
        "a tensor from outside of the functions is used",
        "functions that make all they use: model_fn the model, batch_fn the batch",
    ),
    (
        "no fake impl registered",
        "a custom operator has no fake kernel",
        "torch.library.register_fake for it",
    ),
    (
        "UninitializedParameter",
        "a lazy layer learns its size from values",
        "layers with their sizes given (torch.nn.Linear for torch.nn.LazyLinear)",
    ),
    (
        "Mixing fake modes",
        "tensors of another dry run, or of another FakeTensorMode, are used",
        "functions that make all they use: model_fn the model, batch_fn the batch",
    ),
    (
        "not linked with support for",
        "something is moved to another device",
        "functions without .cuda(), .to(device) and device=: a dry run is made on the CPU, and target tells for which device",
    ),
    (
        "Torch not compiled with CUDA",
        "something is moved to another device",
        "functions without .cuda(), .to(device) and device=: a dry run is made on the CPU, and target tells for which device",
    ),
)

_BY_NAME: Final = MappingProxyType(
    {
        "DataDependentOutputException": (
            "a value is read (.item(), float(loss), if loss > 3, .tolist()): without values there is none",
            "work on tensors there, and move what only logs out of it",
        ),
        "DynamicOutputShapeException": (
            "a shape depends on values (a boolean mask, nonzero, unique)",
            "torch.where, or a product with the mask, in its place",
        ),
        "DynamicOutputShape": (
            "a shape depends on values (a boolean mask, nonzero, unique)",
            "torch.where, or a product with the mask, in its place",
        ),
        "UnsupportedOperatorException": (
            "an operator has no fake kernel",
            "torch.library.register_fake for a custom operator",
        ),
        "UnsupportedFakeTensorException": ("a tensor has a form without fake kernels", "dense tensors in its place"),
        "UnsupportedMutationAliasingException": ("an operator changes what it must not", "an operator without that"),
    }
)


def refusal(error: BaseException, phase: str, optimizer: str | None) -> Unknown | None:
    """Why a dry run cannot go on and what to pass instead; None where the error is the user's own, and not of the dry run.

    Parameters
    ----------
    error
        What was raised.
    phase
        Where the training stood.
    optimizer
        Name of the optimizer's class, where it was made.
    """
    text = str(error)
    found = next(((what, needs) for part, what, needs in _BY_TEXT if part in text), None)
    found = found or _BY_NAME.get(type(error).__name__)
    if optimizer is not None and optimizer in OPTIMIZERS_THAT_READ and phase == "optimizer":
        reason = f"the optimizer {optimizer} cannot be stepped without values: {OPTIMIZERS_THAT_READ[optimizer]}"
        return Unknown(reason, f"an optimizer_fn of another one, such as AdamW, {_MEASURED}")
    if found is None:
        return None
    if phase == "optimizer":
        return Unknown(f"the optimizer {optimizer} cannot be stepped: {found[0]}", f"another optimizer_fn, {_MEASURED}")
    what, needs = found
    detail = f" ({clean(text, 120)})" if type(error).__name__.startswith("Unsupported") else ""
    return Unknown(f"{what}{detail}, in phase {phase}{_where(error)}", f"{needs}; {_MEASURED}")


def _where(error: BaseException) -> str:
    """The innermost line that is neither torch's nor perfnb's."""
    ours = str(Path(__file__).resolve().parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        name = frame.filename
        if "/torch/" in name.replace("\\", "/") or name.startswith((ours, "<frozen")):
            continue
        line = f": {clean(frame.line, 80)}" if frame.line else ""
        return f", at {clean(Path(name).name)}:{frame.lineno}{line}"
    return ""
