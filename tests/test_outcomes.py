"""The accuracy ledger: written before the change, safe from crashes and other writers, silent about what is nobody's business."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perfnb
from perfnb import terminal
from perfnb.__main__ import main
from perfnb.errors import OutcomesError
from perfnb.fix import Suggestion
from perfnb.outcomes import accuracy, calibration, ledger_folder, own_calibration, read_ledger, record_outcome, record_prediction
from perfnb.outcomes.accuracy import wilson
from perfnb.outcomes.files import append
from perfnb.outcomes.identity import machine_of, stored_text, stored_value, workload_of
from perfnb.outcomes.ledger import as_csv
from perfnb.outcomes.rows import COLUMNS, parsed
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform, table_from_text
from perfnb.verify import verify

CHANGE = Change("num_workers", 0, 4)
PREDICTION = Prediction(
    "step_us", before=100.0, after=60.0, low=55.0, high=66.0, basis="prior", model="loader_queue_unprobed 1", spread=0.1
)
REFUSAL = Unknown("the run loaded with 2 workers", "a probe")


@pytest.fixture(autouse=True)
def _nothing_shipped(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What perfnb ships grows with each benchmark: these tests count rows of their own alone."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "outcomes.csv").write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    monkeypatch.setattr("perfnb.outcomes.ledger.files", lambda _: folder)


def run_of(duration_us: float, count: int = 40, **fields: Any) -> Run:
    start = np.arange(count) * duration_us
    steps = conform("steps", pd.DataFrame({"rank": 0, "step": range(count), "start_us": start, "duration_us": duration_us}))
    config = {"num_workers": 0 if duration_us == 100.0 else 4, "model": "resnet50"}
    return dataclasses.replace(Run(steps=steps), **{"config": config, **fields})


def recorded(folder: Path, actual_us: float, answer: Prediction | Unknown = PREDICTION, **options: Any) -> str:
    """A prediction and its outcome, written to a folder."""
    number = record_prediction(run_of(100.0), answer, [CHANGE], folder=folder, **options)
    suggestion = Suggestion("raise_num_workers", (CHANGE,), (), "why", answer)
    record_outcome(number, verify(suggestion, run_of(100.0), run_of(actual_us)), folder=folder)
    return number


def own_rows(folder: Path) -> pd.DataFrame:
    return read_ledger(folder, shipped=False).rows


def test_a_prediction_and_its_outcome_are_one_row(tmp_path: Path) -> None:
    number = recorded(tmp_path, 62.0, workload="resnet50 on imagenet")

    (row,) = own_rows(tmp_path).to_dict(orient="records")
    assert (row["prediction_id"], row["model"], row["knobs"]) == (number, "loader_queue_unprobed 1", "num_workers")
    assert json.loads(row["changes"]) == [{"knob": "num_workers", "before": 0, "after": 4}]
    assert (row["before"], row["after"], row["low"], row["high"], row["simulated"]) == (100.0, 60.0, 55.0, 66.0, 60.0)
    assert (row["actual_before"], row["actual"], row["steps_after"]) == (100.0, 62.0, 34)
    assert (row["inside"], row["sign_ok"], row["void"], row["workload"]) == (True, True, "", "resnet50 on imagenet")
    assert row["is_own"]
    assert row["found_at"] >= row["predicted_at"]


def test_a_prediction_without_an_outcome_is_pending(tmp_path: Path) -> None:
    record_prediction(run_of(100.0), Suggestion("raise_num_workers", (CHANGE,), (), "why", PREDICTION), folder=tmp_path)

    (row,) = accuracy(folder=tmp_path).to_dict(orient="records")
    assert (row["n"], row["pending"]) == (0, 1)
    assert math.isnan(row["coverage_share"])


def test_few_steps_are_kept_with_their_reason_and_not_scored(tmp_path: Path) -> None:
    number = record_prediction(run_of(100.0), PREDICTION, [CHANGE], folder=tmp_path)

    record_outcome(number, verify(PREDICTION, run_of(100.0), run_of(62.0, 12)), folder=tmp_path)

    (row,) = own_rows(tmp_path).to_dict(orient="records")
    assert row["void"].startswith("only 11 steady steps")
    assert row["actual"] == 62.0
    assert accuracy(folder=tmp_path).loc[0, ["n", "voids"]].to_list() == [0, 1]


def test_a_refusal_is_counted_with_what_would_have_been_said(tmp_path: Path) -> None:
    recorded(tmp_path, 50.0, REFUSAL, shadow_after=55.0)

    (row,) = accuracy(folder=tmp_path).to_dict(orient="records")
    assert (row["model"], row["n"], row["refusals"], row["voids"]) == ("loader_queue 1", 0, 1, 0)
    assert row["shadow_error_share"] == pytest.approx(0.1)


def test_the_first_outcome_that_can_be_scored_counts(tmp_path: Path) -> None:
    number = record_prediction(run_of(100.0), PREDICTION, [CHANGE], folder=tmp_path)

    for actual, steps in ((62.0, 12), (70.0, 40), (61.0, 40)):
        record_outcome(number, verify(PREDICTION, run_of(100.0), run_of(actual, steps)), folder=tmp_path)

    assert own_rows(tmp_path)["actual"].to_list() == [70.0]


def test_an_outcome_of_another_prediction_is_refused(tmp_path: Path) -> None:
    number = record_prediction(run_of(100.0), PREDICTION, [CHANGE], folder=tmp_path)
    other = dataclasses.replace(PREDICTION, after=61.0)

    with pytest.raises(OutcomesError, match="another prediction"):
        record_outcome(number, verify(other, run_of(100.0), run_of(62.0)), folder=tmp_path)
    with pytest.raises(OutcomesError, match="no prediction 'abc'"):
        record_outcome("abc", verify(PREDICTION, run_of(100.0), run_of(62.0)), folder=tmp_path)
    with pytest.raises(OutcomesError, match="no change is named"):
        record_prediction(run_of(100.0), PREDICTION, folder=tmp_path)


def test_a_torn_last_line_is_skipped_and_said(tmp_path: Path) -> None:
    recorded(tmp_path, 62.0)
    (file,) = tmp_path.iterdir()
    with file.open("ab") as stream:
        stream.write(b'{"row":"prediction","prediction_id":"to')

    found = read_ledger(tmp_path, shipped=False)

    assert len(found.rows) == 1
    assert len(found.notes) == 1
    assert "the last line is torn" in found.notes[0]


def test_a_file_that_cannot_be_read_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path, 62.0)
    (tmp_path / "0.jsonl").write_bytes(b"")
    opened = Path.open

    def refusing(self: Path, *mode: str) -> Any:
        if self.name == "0.jsonl":
            raise PermissionError(13, "Permission denied")
        return opened(self, *mode)

    monkeypatch.setattr(Path, "open", refusing)
    found = read_ledger(tmp_path, shipped=False)

    assert found.notes == ("0.jsonl: cannot be read (Permission denied) and is skipped",)
    assert len(found.rows) == 1


def test_a_row_that_was_changed_afterwards_is_skipped_and_said(tmp_path: Path) -> None:
    recorded(tmp_path, 62.0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes().replace(b'"after":60.0', b'"after":62.0'))

    found = read_ledger(tmp_path, shipped=False)

    assert found.rows.empty
    assert [note.partition(": ")[2] for note in found.notes[:1]] == ["1 line skipped: changed after it was written"]
    assert found.notes[1] == "1 outcome skipped: the prediction is not there, or is another"


HOSTILE = (
    b"",
    b"null",
    b"[]",
    b'{"row":"outcome"}',
    b'{"row":"prediction","after":NaN}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe",
    b"9" * 10_000,
    b'{"row":"outcome","prediction_id":{"__reduce__":"os.system"}}',
    b"x" * ((1 << 20) + 5),
)


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_lines_that_are_no_rows_are_skipped_and_the_next_ones_read(tmp_path: Path, line: bytes) -> None:
    recorded(tmp_path, 62.0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(line + b"\n" + file.read_bytes())

    found = read_ledger(tmp_path, shipped=False)

    assert found.rows["actual"].to_list() == [62.0]
    assert len(found.notes) == (1 if line else 0)


@given(st.binary(max_size=200))
def test_no_line_makes_reading_fail(line: bytes) -> None:
    assert parsed(line) is not None


def test_a_copied_file_counts_once(tmp_path: Path) -> None:
    recorded(tmp_path, 62.0)
    (file,) = tmp_path.iterdir()
    (tmp_path / "copy of it.jsonl").write_bytes(file.read_bytes())

    assert len(own_rows(tmp_path)) == 1


def _write_many(folder: Path, count: int) -> None:
    for _ in range(count):
        record_prediction(run_of(100.0), PREDICTION, [CHANGE], folder=folder)


def test_writers_at_the_same_time_lose_nothing_and_share_no_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(tmp_path, 20)) for _ in range(2)]
    for writer in writers:
        writer.start()
    _write_many(tmp_path, 20)
    for writer in writers:
        writer.join()

    found = read_ledger(tmp_path, shipped=False)

    assert (len(found.rows), found.notes) == (60, ())
    assert len(list(tmp_path.iterdir())) == 3


def test_a_forked_child_writes_to_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append({"row": "one"}, tmp_path)
    monkeypatch.setattr("perfnb.outcomes.files.os.getpid", lambda: 1)

    append({"row": "two"}, tmp_path)

    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    with pytest.raises(OutcomesError, match="PERFNB_OUTCOMES"):
        record_prediction(run_of(100.0), PREDICTION, [CHANGE], folder=file)
    with pytest.raises(OutcomesError, match="is none"):
        read_ledger(file)
    assert own_calibration(file).pairs == own_calibration(tmp_path / "none").pairs


def test_the_folder_is_given_or_named_by_the_environment_or_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger_folder("given") == Path("given")
    monkeypatch.setenv("PERFNB_OUTCOMES", "team")
    assert ledger_folder() == Path("team")
    monkeypatch.delenv("PERFNB_OUTCOMES")
    assert ledger_folder().parts[-2:] == ("perfnb", "outcomes")


def test_nothing_private_is_written(tmp_path: Path) -> None:
    samples = table_from_text("host_samples", "rank host time_us\n0 secret-host 0")
    config = {"data_root": "/home/ann/secret-data", "api_key": "secret-key", "model": "secret-model"}
    run = run_of(100.0, config=config, host_samples=samples, machine=Machine(cpu_capacity=4.0, torch_version="2.13.0"))
    prediction = dataclasses.replace(PREDICTION, assumptions=("data_root is /home/ann/secret-data already",))
    changes = [Change("data_root", config["data_root"], "/local/secret-copy"), CHANGE]

    record_prediction(run, prediction, changes, folder=tmp_path)
    record_prediction(run, Unknown("data_root: /home/ann/secret-data is not known", ""), changes, folder=tmp_path)

    (file,) = tmp_path.iterdir()
    assert b"secret" not in file.read_bytes()
    assert own_rows(tmp_path)["torch"].to_list() == ["2.13.0"] * 2


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, True),
        (np.int64(4), "4"),
        (0.5, 0.5),
        (float("nan"), "nan"),
        (2**60, str(2**60)),
        (PurePosixPath("data"), "<path>"),
        (r"C:\data", "<path>"),
        ("s3://bucket/key", "<path>"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\ud800", "\\ud800"),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_values_are_stored_as_plain_ones(value: Any, stored: Any) -> None:
    assert stored_value(value) == stored


def test_shares_in_a_sentence_are_no_paths() -> None:
    assert stored_text("1/2 of C:\\data\\x and file:///x/y, 3 / 4") == "1/2 of <path> and <path>, 3 / 4"


def test_a_job_with_another_seed_is_the_same_workload() -> None:
    config = {"model": "resnet50", "seed": 1, "num_workers": 0}

    assert workload_of(config) == workload_of({**config, "seed": 2, "num_workers": 8})
    assert workload_of(config) != workload_of({**config, "model": "vit"})
    assert workload_of({}) == ""


def test_a_machine_is_a_digest_of_what_is_known() -> None:
    samples = table_from_text("host_samples", "rank host time_us\n0 a 0\n1 b 0")

    assert machine_of(Run()) == ("", 1)
    assert machine_of(Run(host_samples=samples))[1] == 2
    assert machine_of(Run(machine=Machine(cpu_capacity=2.0))) != machine_of(Run(machine=Machine(cpu_capacity=4.0)))


def test_errors_and_coverage_are_those_of_the_scored_pairs(tmp_path: Path) -> None:
    for actual in (60.0, 75.0, 50.0):  # errors 0, -.2, +.2; the first alone lies in 55 to 66
        recorded(tmp_path, actual, workload=f"job {actual}")
    recorded(tmp_path, 120.0, workload="job 60.0")  # -.5, and slower where faster was predicted

    (row,) = accuracy(folder=tmp_path).to_dict(orient="records")
    assert (row["n"], row["workloads"], row["signs"], row["sign_errors"]) == (4, 3, 4, 1)
    assert [row[f"{name}_error_share"] for name in ("median", "max")] == pytest.approx([0.2, 0.5])
    assert row["p90_error_share"] == pytest.approx(0.41)  # of 0, .2, .2, .5: .2 + .7 x .3
    assert row["coverage_share"] == 0.25
    assert (row["coverage_low"], row["coverage_high"]) == pytest.approx(wilson(1, 4))
    assert row["mean_width_share"] == pytest.approx(11 / 60)


def test_groups_are_those_asked_for(tmp_path: Path) -> None:
    recorded(tmp_path, 60.0, workload="a")
    recorded(tmp_path, 60.0, workload="b")

    assert len(accuracy(folder=tmp_path, by=["workload"])) == 2
    assert accuracy(folder=tmp_path, by=[])["n"].to_list() == [2]


def test_wilson_intervals_by_hand() -> None:
    # 8 of 10, z = 1.96: centre (.8 + .19207) / 1.38415, reach 1.95996 / 1.38415 sqrt(.016 + .009604)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 5)[0] == 0.0
    assert all(math.isnan(end) for end in wilson(0, 0))


def ten_pairs(folder: Path) -> None:
    for number in range(10):
        ratio = number - 2
        recorded(folder, 60.0 * math.exp(0.1 * ratio), workload=f"job {number % 3}")


def test_ten_of_the_users_own_pairs_calibrate(tmp_path: Path) -> None:
    ten_pairs(tmp_path)

    found = own_calibration(tmp_path).interval(100.0, 0.1, 0.1, model="loader_queue_unprobed 1", knob="num_workers")

    # ratios -2 ... 7, w = .1: 100 exp(-.2) and 100 exp(.7)
    assert (found.after, found.low, found.high) == pytest.approx((100.0, 81.87, 201.38), abs=0.01)
    assert found.basis == "calibrated on 10 pairs (3 workloads, 10 here; loader_queue_unprobed 1, num_workers)"


def test_what_is_asked_on_the_command_line_rests_on_the_users_record(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[..., str]
) -> None:
    ten_pairs(tmp_path)
    monkeypatch.setenv("PERFNB_OUTCOMES", str(tmp_path))

    folder = repository / "data" / "samples" / "slow_loader"

    told = json.loads(answer("predict", folder, "--set", "num_workers=2", "--json"))
    run, config = perfnb.read_trace(folder), json.loads((folder / "config.json").read_text(encoding="utf-8"))
    suggested = {item.fix: item.prediction for item in perfnb.suggest(run, config)}

    assert "10 here" in told["prediction"]["basis"]
    assert "10 here" in suggested["raise_num_workers"].basis


def test_void_refused_and_pending_pairs_do_not_calibrate(tmp_path: Path) -> None:
    recorded(tmp_path, 50.0, REFUSAL)
    number = record_prediction(run_of(100.0), PREDICTION, [CHANGE], folder=tmp_path)
    record_prediction(run_of(100.0), PREDICTION, [CHANGE], folder=tmp_path)
    record_outcome(number, verify(PREDICTION, run_of(100.0), run_of(62.0, 12)), folder=tmp_path)

    assert calibration(own_rows(tmp_path)).pairs == ()


def test_a_prediction_that_a_track_record_moved_counts_by_what_the_models_gave(tmp_path: Path) -> None:
    moved = dataclasses.replace(PREDICTION, after=66.0, simulated=60.0)

    recorded(tmp_path, 60.0 * math.exp(0.2), moved)

    (pair,) = calibration(own_rows(tmp_path)).pairs
    assert pair.ratio == pytest.approx(2.0)


def test_a_new_outcome_is_in_the_next_calibration(tmp_path: Path) -> None:
    recorded(tmp_path, 62.0)
    before = len(own_calibration(tmp_path).pairs)

    recorded(tmp_path, 62.0)

    assert len(own_calibration(tmp_path).pairs) == before + 1


def test_what_is_shipped_has_the_columns_and_says_where_it_is_from() -> None:
    path = Path(perfnb.__file__).with_name("outcomes.csv")
    lines = path.read_text(encoding="utf-8").splitlines()

    assert lines[0].startswith("# ")
    assert next(line for line in lines if not line.startswith("#")) == ",".join(COLUMNS)


def test_rows_survive_the_way_through_the_shipped_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path, 62.0, workload='comma, "quotes"')
    recorded(tmp_path, 50.0, REFUSAL)
    record_prediction(run_of(100.0), PREDICTION, [CHANGE], folder=tmp_path)
    rows = own_rows(tmp_path)
    (tmp_path / "outcomes.csv").write_text(as_csv(rows, "made in a test"), encoding="utf-8")
    monkeypatch.setattr("perfnb.outcomes.ledger.files", lambda _: tmp_path)

    shipped = read_ledger(tmp_path / "none").rows

    texts = [name for name, kind in COLUMNS.items() if kind == "string"]
    pd.testing.assert_frame_equal(shipped[texts].fillna(""), rows[texts].fillna(""))
    others = [name for name in COLUMNS if name not in texts]
    pd.testing.assert_frame_equal(shipped[others], rows[others])
    assert not shipped["is_own"].any()


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*words: object) -> str:
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run


def test_the_command_line_tells_pairs_refusals_and_what_was_skipped(tmp_path: Path, answer: Callable[..., str]) -> None:
    recorded(tmp_path, 62.0)
    recorded(tmp_path, 50.0, REFUSAL)
    (tmp_path / "bad.jsonl").write_bytes(b"nothing\n")

    printed = answer("accuracy", "--folder", tmp_path)
    told = json.loads(answer("accuracy", "--folder", tmp_path, "--json"))

    assert "loader_queue_unprobed 1  num_workers" in printed
    assert "bad.jsonl: 1 line skipped" in printed
    rows = {row["model"]: (row["n"], row["refusals"]) for row in told["rows"]}
    assert rows == {"loader_queue_unprobed 1": (1, 0), "loader_queue 1": (0, 1)}  # which it was a refusal does not tell
    assert len(told["notes"]) == 1


def test_an_empty_ledger_says_how_it_is_filled() -> None:
    nothing = read_ledger("none", shipped=False)

    assert "record_prediction" in terminal.accuracy(accuracy(nothing.rows), nothing.notes)


@settings(max_examples=30)
@given(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=12))
def test_what_is_written_is_read_to_the_bit(values: list[float]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for value in values:
            prediction = dataclasses.replace(PREDICTION, after=value)
            record_prediction(run_of(100.0), prediction, [CHANGE], folder=name)

        assert sorted(own_rows(Path(name))["after"]) == sorted(values)
