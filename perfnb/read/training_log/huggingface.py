"""The log of a Hugging Face Trainer: trainer_state.json, in an output folder or in its newest checkpoint."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from perfnb.errors import LogFormatError
from perfnb.read.log_text import parsed, text_of
from perfnb.read.metric_rows import rows_of
from perfnb.read.training_log.log import Log, plain_config

NAME: Final = "trainer_state.json"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d{1,12})")
# transformers, Trainer.train: the last entry tells of the whole training; its train_loss is a mean, its train_runtime a total
_OF_THE_WHOLE: Final = {"train_runtime": "train_runtime_s_total", "train_loss": "train_loss_mean"}
_CONFIG: Final = (
    "max_steps",
    "num_train_epochs",
    "train_batch_size",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "best_metric",
    "is_hyper_param_search",
)


def state_files(folder: Path) -> list[Path]:
    """The states that a folder holds: its own and those of its checkpoints, the newest checkpoint last."""
    checkpoints = sorted(
        (int(match[1]), path / NAME)
        for path in folder.iterdir()
        if (match := _CHECKPOINT.fullmatch(path.name)) and (path / NAME).is_file()
    )
    own = [folder / NAME] if (folder / NAME).is_file() else []
    return [*own, *(path for _, path in checkpoints)]


def read(path: Path) -> Log:
    """The log of a trainer_state.json, or of a folder that holds some.

    Raises
    ------
    LogFormatError
        If there is none, or it holds no entries.
    """
    if path.is_dir():
        files = state_files(path)
        if not files:
            message = f"{path.name} holds no {NAME}, in itself or in a folder checkpoint-<step>"
            raise LogFormatError(message)
        states = {file: _state(file) for file in dict.fromkeys([files[0], files[-1]])}
        file, state = max(states.items(), key=lambda item: _step(item[1]))
        notes = [f"read {file.parent.name}/{NAME}, the newest of {len(files)}"] if len(files) > 1 else []
    else:
        file, state, notes = path, _state(path), []
    return _log(file, state, notes)


def _state(file: Path) -> dict[str, Any]:
    state = parsed(text_of(file), file.name)
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        message = f"{file.name} has no log_history: it is no state of a Hugging Face Trainer"
        raise LogFormatError(message)
    return state


def _step(state: dict[str, Any]) -> int:
    step = state.get("global_step")
    return step if isinstance(step, int) else 0


def _log(file: Path, state: dict[str, Any], notes: list[str]) -> Log:
    entries = [entry for entry in state["log_history"] if isinstance(entry, dict)]
    if not entries:
        message = f"{file.name}: its log_history is empty: train past logging_steps first"
        raise LogFormatError(message)
    rows = []
    for entry in entries:
        if "train_runtime" not in entry:
            rows.append(entry)
            continue
        whole = {_OF_THE_WHOLE.get(name, name): value for name, value in entry.items()}
        runtime, steps = entry["train_runtime"], _step(state)
        if isinstance(runtime, (int, float)) and steps > 0:
            whole["mean_step_us"] = 1e6 * runtime / steps
            notes.append(
                f"mean_step_us is train_runtime / global_step ({runtime:g} s / {steps}): evaluation and saving are in it, "
                "and after a resume train_runtime tells of the last session only"
            )
        rows.append(whole)
    read_rows = replace(rows_of(rows, "log_history"), is_of_one_rank=True)
    config = {name: state[name] for name in _CONFIG if state.get(name) is not None}
    if isinstance(config.get("max_steps"), int):
        config["planned_steps"] = config["max_steps"]
    if (file.parent / "training_args.bin").is_file():
        notes.append("training_args.bin is a pickle, which could run code: it was not read, so config lacks the arguments")
    missing = {
        "steps": "a Hugging Face log has no time of each step, only train_runtime of the whole: record with perfnb's callback",
        "phases": "a Hugging Face log has no times of phases: record with perfnb's callback",
    }
    return Log([read_rows], plain_config(config), tuple(notes), missing)
