"""Event files that torch's real SummaryWriter writes become a Run, torn ones up to the tear."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfnb.errors import LogFormatError
from perfnb.read.training_log import read_training_log

pytestmark = pytest.mark.torch


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write scalars `(tag, step, value, moment)` into a folder below the temporary one."""
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard")

    def written(name: str, *scalars: tuple[str, int, float, float], more: Callable[[Any], None] | None = None) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional

            with SummaryWriter(str(tmp_path / name)) as writer:
                for tag, step, value, moment in scalars:
                    writer.add_scalar(tag, value, step, walltime=moment)
                if more is not None:
                    more(writer)
        return tmp_path / name

    return written


def scalars(count: int = 5, every: int = 1) -> list[tuple[str, int, float, float]]:
    return [
        (tag, step * every, value, 1.79e9 + step / 4)
        for step in range(count)
        for tag, value in (("train/loss", 2.0 - step / 4), ("train/lr", 0.5), ("val/accuracy", 0.25))
    ]


def test_scalars_become_rows_and_moments_steps(write: Callable[..., Path]) -> None:
    run = read_training_log(write("a", *scalars()))

    assert run.training["loss"].to_list() == [2.0, 1.75, 1.5, 1.25, 1.0]
    assert run.training["learning_rate"].to_list() == [0.5] * 5
    assert run.metrics["name"].unique().tolist() == ["val/accuracy"]
    assert run.steps["duration_us"].to_list() == [250_000.0] * 4
    assert run.steps["steps_inferred"].all()
    assert run.source == ("a",)


def test_rows_further_apart_than_a_step_make_no_steps(write: Callable[..., Path]) -> None:
    run = read_training_log(write("a", *scalars(every=10)))

    assert run.steps.empty
    assert "further apart than one step" in run.missing["steps"]
    assert run.training["step"].to_list() == [0, 10, 20, 30, 40]


def test_a_file_is_known_by_its_content_whatever_its_name(write: Callable[..., Path], tmp_path: Path) -> None:
    file = next(write("a", *scalars()).iterdir()).rename(tmp_path / "events.log")

    assert len(read_training_log(file).training) == 5


@pytest.mark.parametrize("cut", [1, 3, 9, 30])
def test_a_torn_file_is_read_up_to_the_tear(cut: int, write: Callable[..., Path]) -> None:
    file = next(write("a", *scalars()).iterdir())
    file.write_bytes(file.read_bytes()[:-cut])

    run = read_training_log(file)

    assert len(run.training) >= 4
    assert "is torn after 15 events" in run.notes[0]


def test_a_damaged_file_is_read_up_to_the_damage(write: Callable[..., Path]) -> None:
    file = next(write("a", *scalars()).iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))

    run = read_training_log(file)

    assert 1 <= len(run.training) < 5
    assert "is damaged after" in run.notes[0]


def test_other_kinds_of_values_are_left_out_and_hyperparameters_are_the_config(write: Callable[..., Path]) -> None:
    torch = pytest.importorskip("torch")

    def more(writer: Any) -> None:
        writer.add_histogram("weights", torch.randn(100), 0)
        writer.add_text("note", "hello", 0)
        writer.add_scalar("new style", 3.0, 1, new_style=True)
        writer.add_hparams({"lr": 0.5, "name": "x"}, {"hparam/score": 1.0}, run_name=".")

    run = read_training_log(write("a", *scalars(), more=more))

    assert run.config == {"lr": 0.5, "name": "x"}
    assert run.metrics.set_index("name")["value"]["new style"] == 3.0
    assert any("values of the kind 'text' are left out" in note for note in run.notes)


def test_a_resumed_training_keeps_its_later_values(write: Callable[..., Path]) -> None:
    again = [("train/loss", step, 9.0, 1.79e9 + 100 + step) for step in (3, 4, 5)]

    run = read_training_log(write("a", *scalars(), *again))

    assert run.training["loss"].to_list() == [2.0, 1.75, 1.5, 9.0, 9.0, 9.0]
    assert any("'train/loss' went back to step 3: 2 values up to step 4 from before are left out" in note for note in run.notes)


def test_folders_of_training_and_validation_belong_together_and_others_do_not(write: Callable[..., Path], tmp_path: Path) -> None:
    write("run/train", ("loss", 0, 1.0, 1.79e9))
    write("run/validation", ("loss", 0, 2.0, 1.79e9))
    write("other/a", ("loss", 0, 1.0, 1.79e9))
    write("other/b", ("loss", 0, 1.0, 1.79e9))

    run = read_training_log(tmp_path / "run")

    assert run.training[["loss", "validation_loss"]].to_numpy().tolist() == [[1.0, 2.0]]
    with pytest.raises(LogFormatError, match=r"other holds 2 folders of event files \(a, b\): name one of them"):
        read_training_log(tmp_path / "other")


def test_a_file_without_scalars_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(LogFormatError, match="holds no scalars"):
        read_training_log(write("a"))


def test_without_the_package_the_error_says_what_to_install(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("a", *scalars())
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)

    with pytest.raises(LogFormatError, match="pip install tensorboard"):
        read_training_log(folder)
