"""RecordCallback for `transformers.Trainer`: one line records its training."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from perfnb.record.frameworks.knobs import SCHEDULES, attempted, told
from perfnb.record.frameworks.session import Session
from perfnb.record.recorder import Recorder

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
else:
    try:
        from transformers import TrainerCallback
    except ImportError:
        TrainerCallback = None

KNOBS: Final[Mapping[str, str]] = {
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "dataloader_num_workers": "num_workers",
    "dataloader_prefetch_factor": "prefetch_factor",
    "dataloader_pin_memory": "pin_memory",
    "dataloader_persistent_workers": "persistent_workers",
    "dataloader_in_order": "in_order",
    "dataloader_drop_last": "drop_last",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "torch_compile": "compile",
    "ddp_bucket_cap_mb": "bucket_cap_mb",
    "ddp_find_unused_parameters": "find_unused_parameters",
}
"""Field of transformers.TrainingArguments to knob."""

LOGGED: Final[Mapping[str, str]] = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "eval_loss": "validation_loss",
}
"""Key of what the Trainer logs to the name that the tables have for it; other numbers keep their own."""

_LENGTH_GROUPED: Final = "group_by_length"


class RecordCallback(TrainerCallback or object):  # type: ignore[misc]  # transformers is not there where types are checked
    """Records the training of a `transformers.Trainer`: `Trainer(..., callbacks=[RecordCallback("runs/exp1")])`.

    Where a recording is under way round `trainer.train()`, that one takes the settings and the values, and goes on when the
    training ends. The Trainer says nothing to its callbacks when the training raises: a recording of the callback's own then
    ends, as failed, with the next training, the next recording or the process. Another training with the same callback is
    written beside the first: exp1, exp1-2, exp1-3.

    Parameters
    ----------
    folder
        As in `perfnb.record`.
    **options
        Further arguments of `perfnb.record`.

    Attributes
    ----------
    recorder
        The recording of the last training, with its `run`; None before.
    """

    def __init__(self, folder: str | PathLike[str] | None = None, **options: Any) -> None:
        if TrainerCallback is None:
            message = "perfnb.record.frameworks.huggingface needs transformers: pip install transformers"
            raise ImportError(message)
        self._session = Session(folder, options)

    @property
    def recorder(self) -> Recorder | None:
        """The recording of the last training."""
        return self._session.recorder

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_more: Any) -> None:
        """Start to record."""
        self._session.begin()
        self._session.note(attempted(lambda: settings_of(args, state)))

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_more: Any,
    ) -> None:
        """Keep what the Trainer logs."""
        values = {LOGGED.get(name, name): value for name, value in (logs or {}).items()}
        self._session.log({**values, "global_step": state.global_step})

    def on_train_end(self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_more: Any) -> None:
        """End the recording."""
        self._session.end()


def settings_of(args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
    """Knobs of a training.

    Parameters
    ----------
    args
        Its arguments.
    state
        Its state when it begins, which knows how many steps are planned.
    """
    settings = told(args, KNOBS)
    settings["precision"] = "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"
    settings["schedule"] = SCHEDULES.get(_word(args.lr_scheduler_type), "unknown")
    settings["optimizer"] = _word(args.optim).removesuffix("_torch").removesuffix("_torch_fused")
    settings["group_by_length"] = getattr(args, "train_sampling_strategy", "") == _LENGTH_GROUPED or bool(
        getattr(args, _LENGTH_GROUPED, False)
    )
    if args.max_grad_norm:
        settings["clip_norm"] = args.max_grad_norm
    if state.logging_steps:
        settings["log_every_n_steps"] = state.logging_steps
    if _word(args.save_strategy) == "steps" and state.save_steps:
        settings["checkpoint_every_n_steps"] = state.save_steps
    if args.gradient_checkpointing:
        settings["activation_checkpointing"] = "full"
    if state.max_steps > 0:
        settings["planned_steps"] = state.max_steps
        settings["warmup_steps"] = args.get_warmup_steps(state.max_steps)
    return settings


def _word(value: Any) -> str:
    """The text of a setting that may be a member of an enumeration."""
    return str(getattr(value, "value", value))
