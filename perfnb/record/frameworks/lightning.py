"""RecordCallback for Lightning's `Trainer`: one line records its training."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from perfnb.record.frameworks.knobs import SCHEDULES, attempted
from perfnb.record.frameworks.session import Session
from perfnb.record.recorder import Recorder
from perfnb.record.seen_config import seen_of_loader

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            Callback = None

LOGGED: Final[Mapping[str, str]] = {
    "train_loss": "loss",
    "train_loss_step": "loss",
    "loss_step": "loss",
    "val_loss": "validation_loss",
}
"""Usual keys of `LightningModule.log` to the name that the tables have for them; other numbers keep their own."""

_PRECISIONS: Final[Mapping[str, str]] = {"32": "fp32", "64": "fp64", "16": "fp16", "bf16": "bf16"}


class RecordCallback(Callback or object):  # type: ignore[misc]  # Lightning is not there where types are checked
    """Records the training of a Lightning `Trainer`: `Trainer(..., callbacks=[RecordCallback("runs/exp1")])`.

    Where a recording is under way round `trainer.fit()`, that one takes the settings and the values, and goes on when the
    training ends. Another training with the same callback is written beside the first: exp1, exp1-2, exp1-3.

    Parameters
    ----------
    folder
        As in `perfnb.record`.
    **options
        Further arguments of `perfnb.record`.
    """

    def __init__(self, folder: str | PathLike[str] | None = None, **options: Any) -> None:
        if Callback is None:
            message = "perfnb.record.frameworks.lightning needs Lightning: pip install lightning"
            raise ImportError(message)
        super().__init__()
        self._session = Session(folder, options, hands_batches=True)
        self._logged: dict[str, Any] = {}

    @property
    def recorder(self) -> Recorder | None:
        """The recording of the last training, with its `run`; None before."""
        return self._session.recorder

    def on_train_start(self, trainer: Any, _pl_module: Any) -> None:
        """Start to record."""
        self._session.begin()
        self._logged = {}
        self._session.note(attempted(lambda: settings_of(trainer)))

    def on_train_batch_start(self, _trainer: Any, _pl_module: Any, batch: Any, _batch_idx: int) -> None:
        """Count the batch in its own step: those of a stream are fetched one ahead."""
        self._session.batch(batch)

    def on_train_batch_end(self, trainer: Any, _pl_module: Any, _outputs: Any, _batch: Any, _batch_idx: int) -> None:
        """Keep what was logged for this step."""
        self._log(trainer)

    def on_validation_end(self, trainer: Any, _pl_module: Any) -> None:
        """Keep what the validation logged."""
        self._log(trainer)

    def on_train_epoch_end(self, trainer: Any, _pl_module: Any) -> None:
        """Keep what was logged for the epoch."""
        self._log(trainer)

    def on_exception(self, _trainer: Any, _pl_module: Any, exception: BaseException) -> None:
        """End the recording, as failed."""
        kind = type(exception).__name__
        self._session.end("failed", f"{kind}: {exception}" if str(exception) else kind)

    def on_train_end(self, trainer: Any, _pl_module: Any) -> None:
        """Keep what was logged last and end the recording."""
        self._log(trainer)
        self._session.end()

    def teardown(self, _trainer: Any, _pl_module: Any, stage: str) -> None:
        """End the recording, where the training ended without a word."""
        if stage == "fit":
            self._session.end()

    def _log(self, trainer: Any) -> None:
        """What is new since the last look; Lightning keeps all that was ever logged, and makes new tensors of what is."""
        metrics = attempted(lambda: dict(trainer.callback_metrics))
        new = {name: value for name, value in metrics.items() if self._logged.get(name) is not value}
        if new:
            self._logged |= new
            self._session.log({LOGGED.get(name, name): value for name, value in new.items()})


def settings_of(trainer: Any) -> dict[str, Any]:
    """Knobs of a training that is about to begin."""
    loader = trainer.train_dataloader
    settings: dict[str, Any] = {
        **(seen_of_loader(loader) if hasattr(loader, "dataset") else {}),  # its iterator was made before the training began
        "gradient_accumulation_steps": trainer.accumulate_grad_batches,
        "precision": _PRECISIONS.get(str(trainer.precision).partition("-")[0], "unknown"),
        "strategy": type(trainer.strategy).__name__,
        "log_every_n_steps": trainer.log_every_n_steps,
    }
    if trainer.gradient_clip_val:
        settings["clip_norm"] = trainer.gradient_clip_val
    planned = trainer.estimated_stepping_batches
    if 0 < planned < float("inf"):
        settings["planned_steps"] = int(planned)
    if trainer.max_steps > 0:
        settings["max_steps"] = trainer.max_steps
    schedulers = [each.scheduler for each in trainer.lr_scheduler_configs]
    settings["schedule"] = SCHEDULES.get(type(schedulers[0]).__name__, "unknown") if schedulers else "constant"
    return settings
