"""Files for ui.perfetto.dev: they read back as the run that they came from, and hold what perfnb found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfnb import read_trace
from perfnb.device_time import device_breakdown
from perfnb.diagnose import diagnose
from perfnb.errors import PerfnbError
from perfnb.perfetto import open_in_perfetto
from perfnb.run import Run
from perfnb.tables import table_from_text

HOSTILE = '</script><img src=x onerror=alert(1)>"\\'


def events_of(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    events = json.loads(text)["traceEvents"]
    assert isinstance(events, list)
    return events


def small_run() -> Run:
    host = table_from_text(
        "host_ops",
        """rank process thread category name             start_us duration_us correlation
           0    77      77     operator aten::mm         10.125   20          -
           0    77      77     runtime  cudaLaunchKernel 12       2           5""",
    )
    device = table_from_text(
        "device_ops",
        """rank device stream kind    name start_us duration_us correlation
           0    0      7      compute gemm 15       6.001       5
           0    0      7      compute gemm 40       1           6""",
    )
    steps = table_from_text("steps", "rank step start_us duration_us\n0 3 0 50")
    return Run(steps=steps, host_ops=host, device_ops=device, signals=frozenset({"steps", "host_ops", "device_ops"}))


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    ["hta/trace_diff/test.json.gz", "kineto/resnet50_pair_A/after_num_workers_4/worker0.1623212756351.pt.trace.json.gz"],
)
def test_a_written_trace_reads_back_with_the_same_device_time(corpus: Path, tmp_path: Path, name: str) -> None:
    run = read_trace(corpus / "traces" / name)

    written = open_in_perfetto(run, tmp_path / "out.json.gz")
    again = read_trace(written.path)

    assert len(again.host_ops) == len(run.host_ops)
    assert len(again.device_ops) == len(run.device_ops)
    one, other = device_breakdown(run).drop(columns="device"), device_breakdown(again).drop(columns="device")
    np.testing.assert_allclose(one.to_numpy(dtype=float), other.to_numpy(dtype=float), atol=1.01e-3, rtol=0)


def test_steps_idle_causes_and_the_ledger_are_tracks_of_their_own(tmp_path: Path) -> None:
    written = open_in_perfetto(small_run(), tmp_path / "out.json")

    events = events_of(written.path)
    ours = [event for event in events if event["ph"] in "bC"]
    assert {(event.get("cat"), event["name"]) for event in ours} >= {
        ("perfnb steps", "step 3"),
        ("perfnb idle, device 0", "idle: unattributed"),
        (None, "ledger (us per step)"),
    }
    counter = next(event for event in ours if event["ph"] == "C")
    assert counter["args"]["compute"] == pytest.approx(7.001)
    begin = next(event for event in ours if event["name"] == "idle: unattributed")
    end = next(event for event in events if event["ph"] == "e" and event["name"] == "idle: unattributed")
    assert (begin["ts"], end["ts"]) == (21.001, 40.0)


def test_findings_are_slices_with_their_numbers(tmp_path: Path) -> None:
    run = read_trace("data/samples/python_logging")

    events = events_of(open_in_perfetto(run, tmp_path / "out.json.gz").path)

    found = {event["name"]: event["args"] for event in events if event.get("cat") == "perfnb findings" and event["ph"] == "b"}
    expected = diagnose(run).found
    assert expected
    assert {name: known["severity_share"] for name, known in found.items()} == {
        finding.detector.replace("_", " "): finding.severity for finding in expected
    }


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    run = small_run()
    hostile = Run(
        host_ops=run.host_ops.assign(name=[HOSTILE, "cudaLaunchKernel"]).astype({"name": "category"}),
        device_ops=run.device_ops,
        signals=run.signals,
    )

    path = open_in_perfetto(hostile, tmp_path / "out.json").path

    assert "</script>" not in path.read_text()
    assert HOSTILE in [event["name"] for event in events_of(path)]


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("mine")

    with pytest.raises(PerfnbError, match=r"out\.json exists: pass overwrite=True"):
        open_in_perfetto(small_run(), path)

    assert path.read_text() == "mine"
    open_in_perfetto(small_run(), path, overwrite=True)
    assert len(events_of(path)) > 4


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: Run) -> Any:
        yield b"{"
        message = "disk full"
        raise OSError(message)

    monkeypatch.setattr("perfnb.perfetto.trace_text", fails)

    with pytest.raises(OSError, match="disk full"):
        open_in_perfetto(small_run(), tmp_path / "out.json")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "message"), [("out.txt", "end in .json"), ("nowhere/out.json", "does not exist")])
def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(PerfnbError, match=message):
        open_in_perfetto(small_run(), tmp_path / name)


def test_an_unknown_device_stays_unknown_and_threads_keep_apart(tmp_path: Path) -> None:
    host = table_from_text(
        "host_ops",
        """rank process thread category name start_us duration_us
           0    1       main   operator a    0        5
           0    1       1      operator b    0        5
           0    1       2      operator c    0        5""",
    )
    device = table_from_text(
        "device_ops", "rank device stream kind name start_us duration_us\n0 - 7 compute gemm 0 6\n0 700 7 compute gemm 9 6"
    )
    run = Run(host_ops=host, device_ops=device, signals=frozenset({"host_ops", "device_ops"}))

    again = read_trace(open_in_perfetto(run, tmp_path / "out.json").path)

    assert again.device_ops["device"].isna().tolist() == [True, False]
    assert again.device_ops["device"].tolist()[1] == 700
    assert again.host_ops["thread"].nunique() == 3
