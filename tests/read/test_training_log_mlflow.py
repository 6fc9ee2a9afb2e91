"""A run of a real local MLflow store, in files and in SQLite, becomes a Run."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from perfnb.errors import LogFormatError
from perfnb.read.training_log import mlflow as reader
from perfnb.read.training_log import read_training_log


@pytest.fixture(scope="module", params=["files", pytest.param("sqlite", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Address of a store with one run, and that run's id; MLflow makes its database in ten seconds."""
    return stored(request.param, tmp_path_factory.mktemp("mlflow"))


def stored(kind: str, folder: Path) -> tuple[str, str]:
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        warnings.simplefilter("ignore")
        pytest.importorskip("mlflow")
        if kind == "sqlite":
            pytest.importorskip("sqlalchemy")
        from mlflow import MlflowClient  # noqa: PLC0415 - optional

        uri = f"file:{folder / 'mlruns'}" if kind == "files" else f"sqlite:///{folder / 'mlflow.db'}"
        client = MlflowClient(uri, uri)
        run_id = client.create_run(client.create_experiment("digits", artifact_location=str(folder))).info.run_id
        client.log_param(run_id, "model/name", "tiny")
        client.log_param(run_id, "lr", 0.1)
        for step in range(4):
            moment = 1_790_000_000_000 + 250 * step
            client.log_metric(run_id, "train/loss", 2.0 - step / 4, timestamp=moment, step=step)
            client.log_metric(run_id, "val_loss", float("nan") if step == 2 else 3.0, timestamp=moment, step=step)
            client.log_metric(run_id, "system/gpu_0_utilization_percentage", 20.0 * step, timestamp=moment, step=step)
            client.log_metric(run_id, "system/network_receive_megabytes", 2.0 * step, timestamp=moment, step=step)
        client.set_terminated(run_id)
        engine = getattr(client._tracking_client.store, "engine", None)
        if engine is not None:
            engine.dispose()
    return uri, run_id


def path_of(uri: str) -> Path:
    return Path(uri.removeprefix("file:").removeprefix("sqlite:///"))


def check(run: Any) -> None:
    assert run.training["loss"].to_list() == [2.0, 1.75, 1.5, 1.25]
    assert run.training["validation_loss"].isna().to_list() == [False, False, True, False]
    assert run.config == {"model/name": "tiny", "lr": "0.1"}
    assert run.steps["duration_us"].to_list() == [250_000.0] * 3
    assert run.gpu_samples["utilization_share"].to_list() == [0.0, 0.2, 0.4, 0.6]
    assert run.host_samples["network_receive_bytes_per_s"].dropna().to_list() == [8e6] * 3


def test_a_run_is_read_from_its_store_by_its_path(store: tuple[str, str]) -> None:
    check(read_training_log(path_of(store[0])))


def test_a_run_is_read_by_its_address(store: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store[0])

    check(read_training_log(f"runs:/{store[1]}"))
    with pytest.raises(LogFormatError, match="has no run 'none'"):
        read_training_log("runs:/none")
    with pytest.raises(LogFormatError, match="names no run"):
        read_training_log("runs:/../..")


def test_a_run_is_read_through_the_client_of_any_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri, run_id = stored("files", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient  # noqa: PLC0415 - optional

        log = reader.through_client(MlflowClient(uri, uri), run_id)
        with pytest.raises(LogFormatError, match="no run 'gone'"):
            reader.through_client(MlflowClient(uri, uri), "gone")

    assert log.rows[0].frame["train/loss"].to_list() == [2.0, 1.75, 1.5, 1.25]
    assert log.config["lr"] == "0.1"


# --- stores by hand ----------------------------------------------------------------------------------------------------


def run_folder(folder: Path, **metrics: str) -> Path:
    (folder / "metrics").mkdir(parents=True)
    (folder / "meta.yaml").write_text("run_id: abc\nstatus: 3\n", encoding="utf-8")
    for name, lines in metrics.items():
        (folder / "metrics" / name).write_text(lines, encoding="utf-8")
    return folder


def test_a_folder_of_several_runs_is_refused_with_their_names(tmp_path: Path) -> None:
    for name in ("aaa", "bbb"):
        run_folder(tmp_path / "0" / name, loss="1790000000000 1.0 0\n")
    (tmp_path / "0" / "meta.yaml").write_text("name: x\n", encoding="utf-8")

    with pytest.raises(LogFormatError, match=r"holds 2 runs \(aaa, bbb\): name one of them"):
        read_training_log(tmp_path)
    assert read_training_log(tmp_path / "0" / "aaa").training["loss"].to_list() == [1.0]


def test_values_logged_without_steps_are_numbered_and_resumed_ones_replaced(tmp_path: Path) -> None:
    lines = "".join(f"{1790000000000 + n} {n} {step}\n" for n, step in enumerate((0, 1, 2, 1, 2, 3)))
    folder = run_folder(tmp_path / "r", loss=lines, lr="1790000000000 0.5 0\n1790000000009 0.25 0\n")

    run = read_training_log(folder)

    assert run.training["loss"].to_list() == [0.0, 3.0, 4.0, 5.0]
    assert run.training["learning_rate"].dropna().to_list() == [0.5, 0.25]
    said = " ".join(run.notes)
    assert "'lr' was logged without steps" in said
    assert "'loss' went back to step 1: 2 values up to step 2" in said


def test_a_torn_last_line_is_left_out_and_a_damaged_one_refused(tmp_path: Path) -> None:
    torn = run_folder(tmp_path / "torn", loss="1790000000000 1.0 0\n17900")
    damaged = run_folder(tmp_path / "damaged", loss="1790000000000 1.0 0\nx\n1790000000001 1.0 1\n")

    assert len(read_training_log(torn).training) == 1
    with pytest.raises(LogFormatError, match="metric 'loss', line 2"):
        read_training_log(damaged)


def test_links_in_a_store_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1790000000000 7.0 0\n", encoding="utf-8")
    folder = run_folder(tmp_path / "r", loss="1790000000000 1.0 0\n")
    (folder / "metrics" / "stolen").symlink_to(secret)
    (folder / "params").symlink_to(tmp_path)

    run = read_training_log(folder)

    assert run.metrics.empty
    assert run.config == {}


def test_an_unfinished_run_says_so_and_one_without_metrics_is_refused(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "r", loss="1790000000000 1.0 0\n")
    (folder / "meta.yaml").write_text("status: 1\n", encoding="utf-8")

    assert "is running" in read_training_log(folder).notes[0]
    with pytest.raises(LogFormatError, match="has no metrics"):
        read_training_log(run_folder(tmp_path / "empty"))


def test_a_database_of_others_is_refused(tmp_path: Path) -> None:
    import sqlite3  # noqa: PLC0415 - only here

    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()

    with pytest.raises(LogFormatError, match=r"other\.db is a database, but none of MLflow's"):
        read_training_log(tmp_path / "other.db")
    with pytest.raises(LogFormatError, match=r"gone\.db is not there"):
        read_training_log(f"sqlite:///{tmp_path / 'gone.db'}")


def test_without_the_package_a_server_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "mlflow", None)

    with pytest.raises(LogFormatError, match="pip install mlflow-skinny"):
        read_training_log("runs:/abc")
