"""The log of Lightning's real CSVLogger becomes a Run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from perfnb.read.training_log import read_training_log

WIDE = "epoch,lr-SGD,step,train_loss_epoch,train_loss_step,val_loss\n,0.1,0,,,\n0,,0,,2.0,\n0,,1,,1.5,\n0,,1,,,1.8\n0,,1,1.75,,\n"


@pytest.mark.torch
def test_a_real_trainer_is_read_from_its_folder_of_versions(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning.pytorch")
        from lightning.pytorch.loggers import CSVLogger  # noqa: PLC0415 - optional

        class Tiny(lightning.LightningModule):  # type: ignore[misc, name-defined] # lightning may be absent
            def __init__(self, width: int = 4) -> None:
                super().__init__()
                self.save_hyperparameters()
                self.layer = torch.nn.Linear(width, 1)

            def training_step(self, batch: Any, _: int) -> Any:
                loss = self.layer(batch[0]).pow(2).mean()
                self.log("train_loss", loss, on_step=True, on_epoch=True)
                return loss

            def validation_step(self, batch: Any, _: int) -> None:
                self.log("val_loss", self.layer(batch[0]).pow(2).mean())

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.1)

        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(12, 4)), batch_size=4)
        trainer = lightning.Trainer(
            max_epochs=2,
            logger=CSVLogger(str(tmp_path), flush_logs_every_n_steps=1),
            log_every_n_steps=1,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=str(tmp_path),
        )
        trainer.fit(Tiny(), loader, loader)

    run = read_training_log(tmp_path / "lightning_logs")

    assert run.training["loss"].notna().sum() == 6
    assert run.training["validation_loss"].notna().sum() == 2
    assert "train_loss_epoch" in run.metrics["name"].to_list()
    assert run.config == {"width": 4}
    assert "record with perfnb" in run.missing["phases"]
    assert run.steps.empty


def test_wide_rows_with_blanks_are_joined_per_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(WIDE, encoding="utf-8")

    run = read_training_log(tmp_path / "metrics.csv")

    assert run.training[["step", "loss", "validation_loss", "learning_rate"]].fillna(-1).to_numpy().tolist() == [
        [0, 2.0, -1.0, 0.1],
        [1, 1.5, 1.8, -1.0],
    ]


def test_the_newest_version_is_read(tmp_path: Path) -> None:
    for version, loss in ((2, "2.5"), (10, "0.5")):
        folder = tmp_path / f"version_{version}"
        folder.mkdir()
        (folder / "metrics.csv").write_text(f"epoch,step,train_loss\n0,0,{loss}\n", encoding="utf-8")

    run = read_training_log(tmp_path)

    assert run.training["loss"].to_list() == [0.5]
    assert "version_10, the newest version" in run.notes[0]


def test_hyperparameters_that_would_build_objects_are_not_built(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(WIDE, encoding="utf-8")
    (tmp_path / "hparams.yaml").write_text("lr: !!python/object/apply:os.system ['touch built']\n", encoding="utf-8")

    run = read_training_log(tmp_path)

    assert run.config == {}
    assert any("hparams.yaml holds more than plain values" in note for note in run.notes)


def test_hyperparameters_that_repeat_themselves_stay_small(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "metrics.csv").write_text(WIDE, encoding="utf-8")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "hparams.yaml").write_text("\n".join(lines), encoding="utf-8")

    run = read_training_log(tmp_path)

    assert len(str(run.config)) < 100_000


def test_a_resumed_trainer_keeps_the_later_rows(tmp_path: Path) -> None:
    rows = "\n".join(f"0,{step},{loss}" for step, loss in ((0, 4), (1, 3), (2, 2), (0, 9), (1, 8)))
    (tmp_path / "metrics.csv").write_text(f"epoch,step,train_loss\n{rows}\n", encoding="utf-8")

    run = read_training_log(tmp_path)

    assert run.training["loss"].to_list() == [9.0, 8.0]
    assert any("went back to step 0: 3 rows up to step 2 from before are left out" in note for note in run.notes)
