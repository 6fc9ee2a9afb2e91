"""`perfnb memory`: of a snapshot, a trace, a run folder and a text; what it says, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from perfnb.__main__ import main
from perfnb.commands.memory_text import picture, remedies, reports_text
from perfnb.read.memory_snapshot import out_of_memory
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text
from perfnb.whatif.memory_report import MemoryReport, memory_reports

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "memory" / "simulated_out_of_memory.json.gz"
HEALTHY = SAMPLE.parent.parent / "healthy"
MESSAGE = (
    "CUDA out of memory. Tried to allocate {wanted}. GPU 0 has a total capacity of 6.00 GiB of which {free} is free. Of the "
    "allocated memory 2.93 GiB is allocated by PyTorch, and 2.30 GiB is reserved by PyTorch but unallocated."
)


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    code = main(["memory", *map(str, words)])
    told = capsys.readouterr()
    assert (code, told.err) == (0, "")
    return told.out


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of a known width: the last column of a table is wrapped to it."""
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of one block and one failure, as JSON in torch's layout."""
    plain = {
        "segments": [],
        "device_traces": [
            [
                {"action": "segment_alloc", "addr": 4096, "size": 20 << 20, "stream": 0, "time_us": 1},
                {"action": "alloc", "addr": 4096, "size": 3 << 20, "stream": 0, "time_us": 2, "frames": FRAMES},
                {"action": "oom", "device_free": 1 << 20, "size": 30 << 20, "stream": 0, "time_us": 3, "frames": FRAMES},
                {"action": "free_requested", "addr": 4096, "size": 3 << 20, "stream": 0, "time_us": 4},
                {"action": "free_completed", "addr": 4096, "size": 3 << 20, "stream": 0, "time_us": 4},
                {"action": "segment_free", "addr": 4096, "size": 20 << 20, "stream": 0, "time_us": 5},
            ]
        ],
        "allocator_settings": {"max_split_size": -1},
    }
    path = tmp_path_factory.mktemp("memory") / "rank0.json"
    path.write_text(json.dumps(plain), encoding="utf-8")
    return path


FRAMES = [{"filename": "/home/me/model.py", "line": place, "name": f"f{place}"} for place in range(5)]


def test_a_snapshot_is_told_with_its_failure_its_holders_a_chart_and_other_settings(
    sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = printed(capsys, sample, "--usable-gib", "0.02")

    assert "ran out of memory at event 2: a true shortage" in told
    assert "3.00 MiB  100 %  1       forward or autograd" in told
    assert "model.py:0:f0 < model.py:1:f1 < model.py:2:f2 < 2 more" in told
    assert "/home/me" not in told
    assert "# forward or autograd" in told
    assert "expandable segments" in told
    assert "beyond what is usable" in told


def test_the_same_as_json(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (memory,) = json.loads(printed(capsys, sample, "--json"))["memories"]

    assert (memory["rank"], memory["device"]) == (0, 0)
    assert memory["sizes"]["peak_allocated_bytes"] == 3 << 20
    assert memory["categories"] == [{"category": "forward or autograd", "bytes": 3 << 20, "share": 1.0, "blocks": 1}]
    assert sum(memory["shares"].values()) == pytest.approx(1.0)
    assert len(memory["settings"]) == 4


@pytest.mark.parametrize(
    ("wanted", "free", "cause"),
    [("1.70 GiB", "0 bytes", "fragmentation"), ("4.00 GiB", "0 bytes", "shortage"), ("1.00 GiB", "3.00 GiB", "limit")],
)
def test_a_log_with_the_message_is_judged_with_what_may_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: str, free: str, cause: str
) -> None:
    log = tmp_path / "train.log"
    log.write_text("[step 5] loss 3.1\n" + MESSAGE.format(wanted=wanted, free=free), encoding="utf-8")

    told, plain = printed(capsys, log), json.loads(printed(capsys, log, "--json"))["out_of_memory"]

    assert plain["cause"] == cause
    assert plain["verdict"] in " ".join(told.split())
    assert plain["remedies"] == remedies(out_of_memory(log.read_text(encoding="utf-8")))


def test_a_message_without_numbers_asks_for_a_snapshot() -> None:
    error = out_of_memory("CUDA out of memory. Tried to allocate 1.70 GiB.")

    assert error.cause == "not told"
    assert "snapshot" in remedies(error)[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", b"all is well", "neither a snapshot nor a trace"),
        ("x.pickle", b"\x80\x04cos\nsystem\n.", "instruction"),
        ("x.json", b'{"segments": 1}', "segments"),
        ("trace.json", b'{"traceEvents": [], "schemaVersion": 1}', "trace.json"),
    ],
)
def test_what_tells_nothing_of_memory_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    assert main(["memory", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_trace_without_memory_says_how_to_record_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", str(HEALTHY / "rank0.pt.trace.json.gz")]) == 2
    assert "profile_memory=True" in capsys.readouterr().err


def test_a_recorded_run_is_judged_by_its_counters() -> None:
    rows = """rank step device requested_bytes allocated_bytes active_bytes inactive_split_bytes reserved_bytes \
peak_allocated_bytes peak_reserved_bytes ooms
              0    5    0      500             600             600          200                  900            700  950  2"""
    run = Run(allocator=table_from_text("allocator", rows), machine=Machine(device_memory_bytes=(1000,)))

    (report,) = memory_reports(run)

    assert report.verdict == (
        "ran out of memory 2 times",
        "950 B reserved at most of 1000 B usable (95 %): little is left",
        "700 B allocated at the peak, 950 B reserved at most",
        "of what was reserved at the allocated peak: efficiency 56 %, rounding 11 %, holes 22 %, cache 11 %",
    )
    assert report.categories is None
    assert any(one.startswith("what holds the memory") for one in report.not_known)


def test_host_memory_of_a_trace_has_a_ledger_and_no_limit() -> None:
    rows = "rank device time_us address bytes\n0 - 1 7 100\n0 - 2 8 50\n0 - 3 7 -100"
    run = Run(allocations=table_from_text("allocations", rows))

    (report,) = memory_reports(run)

    assert report.device == "host"
    assert report.verdict == ("at least 150 B allocated at the peak",)
    assert report.settings is None


def test_the_picture_of_a_memory_that_held_nothing_is_empty() -> None:
    drawn = picture(pd.DataFrame([("a", 0.0, 0.0), ("a", 1.0, 0.0)], columns=["measure", "time_us", "bytes"]))

    assert "#" not in "".join(drawn.splitlines()[:-1])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("log.txt", " \n", "is empty"),
        ("rank0.pickle", "", "is empty"),
        ("rank0.pickle", "(lp0\n.", "is neither a pickle of protocol 2 to 5 nor JSON"),
        ("timeline.html", "<html><img></html>", "is a page with a picture"),
    ],
)
def test_what_cannot_be_read_is_refused_for_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, told: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")

    code = main(["memory", str(path)])

    assert (code, capsys.readouterr().err.startswith(f"perfnb: {name}: {told}")) == (2, True)


def test_a_report_shows_only_the_parts_that_it_has() -> None:
    told = reports_text([MemoryReport(0, "host", ("nothing",), {}, {}, None, None, None, None, ("why",))], ["a note"])

    assert told.splitlines()[0] == "Memory of rank 0, host"
    assert "At the peak" not in told
    assert "Not known\n  why" in told
    assert "Notes\n  a note" in told
