"""Rows about the host from trees of /proc worked out by hand, from this machine, and where there is no /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfnb.record.host import HostCollector
from perfnb.record.host_files import PAGE_BYTES
from perfnb.record.rows import COLUMNS

SECOND = 1_000_000_000
TRAINER, WORKER, OTHER_WORKER = 77, 99_000_001, 99_000_002  # past the largest number that Linux gives a process
KIBIBYTE = 1024

on_linux = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system has no /proc/self/schedstat")


def _write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def _process(cpu_ticks: int, threads: int, pages: int) -> str:
    return f"7 (py (x) y) S 1 7 7 0 -1 0 0 0 0 0 {cpu_ticks} 0 0 0 20 0 {threads} 0 100 4096 {pages} 0 0 0 0 0\n"


def _io(read: int, written: int, read_chars: int, written_chars: int) -> str:
    return f"rchar: {read_chars}\nwchar: {written_chars}\nsyscr: 1\nsyscw: 1\nread_bytes: {read}\nwrite_bytes: {written}\n"


def _status(resident_kib: int, voluntary: int) -> str:
    switches = f"voluntary_ctxt_switches:\t{voluntary}\nnonvoluntary_ctxt_switches:\t9\n"
    return f"Name:\tpython\nVmRSS:\t  {resident_kib} kB\nThreads:\t3\n{switches}"


def _network(loopback: int, received: int, sent: int) -> str:
    def line(name: str, received: int, sent: int) -> str:
        return f"{name:>6}:{received} 1 0 0 0 0 0 0 {sent} 1\n"

    head = "Inter-| Receive\n face |bytes\n"
    return head + line("lo", loopback, loopback) + line("eth0", received, sent) + line("docker0", loopback, loopback)


def _worker(root: Path, pid: int, running: int, waiting: int, *, ticks: int = 0, switches: int = 0, read: int = 0) -> None:
    _write(
        root,
        {
            f"proc/{pid}/schedstat": f"{running} {waiting} 5\n",
            f"proc/{pid}/stat": _process(ticks, 2, 10),
            f"proc/{pid}/status": _status(100, switches),
            f"proc/{pid}/io": _io(read, 0, 2 * read, 0),
        },
    )


def _first(root: Path) -> None:
    _write(
        root,
        {
            "proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n",
            "proc/self/stat": _process(30, 9, 50),
            f"proc/self/task/{TRAINER}/schedstat": "1000 100 4\n",
            f"proc/self/task/{TRAINER}/status": _status(1, 10),
            "proc/self/io": _io(1_000, 0, 5_000, 0),
            "proc/self/cgroup": "0::/\n",
            "proc/meminfo": "MemTotal:  1000 kB\nMemFree: 100 kB\nMemAvailable:  600 kB\n",
            "proc/loadavg": "1.50 2.00 2.50 1/100 7\n",
            "proc/pressure/cpu": "some avg10=12.50 avg60=1.00 avg300=0.00 total=9\n",
            "proc/pressure/memory": "some avg10=0.00 avg60=1.00 avg300=0.00 total=9\nfull avg10=9.00 avg60=0.00\n",
            "proc/pressure/io": "some avg10=2.00 avg60=1.00 avg300=0.00 total=9\n",
            "proc/diskstats": (
                "259 0 nvme0n1 5 0 100 0 5 0 200 0 0\n"
                "259 1 nvme0n1p1 5 0 100 0 5 0 200 0 0\n"
                "7 0 loop0 9 0 9000 0 0 0 0 0 0\n"
                "253 0 dm-0 9 0 9000 0 0 0 0 0 0\n"
            ),
            "proc/net/dev": _network(900, 1_000, 2_000),
            "proc/vmstat": "nr_free_pages 7\npswpin 10\npswpout 20\n",
            "sys/class/net/eth0/device/uevent": "",
            "sys/fs/cgroup/cpu.stat": "usage_usec 1\nnr_periods 7\nnr_throttled 2\nthrottled_usec 30\n",
        },
    )
    for disk in ("nvme0n1", "loop0", "dm-0"):
        (root / "sys/block" / disk).mkdir(parents=True)


def _second(root: Path) -> None:
    """What the files say one second later."""
    _write(
        root,
        {
            "proc/stat": "cpu  110 20 120 740 110 0 0 0 0 0\ncpu0 1 2 3\n",  # 50 busy of 100, 20 of them niced
            f"proc/self/task/{TRAINER}/schedstat": f"{1000 + SECOND // 2} {100 + SECOND // 4} 9\n",
            f"proc/self/task/{TRAINER}/status": _status(1, 35),
            "proc/self/io": _io(3_000, 500, 9_000, 700),
            "proc/diskstats": "259 0 nvme0n1 5 0 110 0 5 0 204 0 0\n259 1 nvme0n1p1 5 0 110 0 5 0 204 0 0\n",
            "proc/net/dev": _network(999, 1_500, 2_900),
            "proc/vmstat": "nr_free_pages 7\npswpin 13\npswpout 20\n",
        },
    )


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 5 * SECOND

    def __call__(self) -> int:
        """The moment."""
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    """A clock that the test moves."""
    return Clock()


Sample = Callable[[float], dict[str, Any]]


def _sampling(collector: HostCollector, clock: Clock) -> Sample:
    def sample(seconds_later: float = 0) -> dict[str, Any]:
        clock.now_ns += int(seconds_later * SECOND)
        (row,) = collector.collect(clock.now_ns)["host_samples"]
        return dict(zip(COLUMNS["host_samples"], row, strict=True))

    return sample


def _gaps(collector: HostCollector) -> dict[str, tuple[str, int]]:
    return {column: (reason, count) for _, column, _, reason, _, count in collector.gaps.changed()}


def test_every_value_of_a_second_is_the_one_worked_out_by_hand(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    _worker(tmp_path, WORKER, 1_000, 0, ticks=20, switches=4, read=100)
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)
    collector.set_workers([WORKER])
    sample = _sampling(collector, clock)

    sample()
    _second(tmp_path)
    _worker(tmp_path, WORKER, 1_000 + SECOND // 10, SECOND // 5, ticks=120, switches=9, read=1_100)
    row = sample(1)

    assert row.pop("own_cpu_cores") >= 0
    assert row.pop("cgroup_cpu_limit") > 0
    assert row == {
        "time_ns": 6 * SECOND,
        "cpu_share": 0.5,
        "low_priority_cpu_share": 0.2,
        "load_1m": 1.5,
        "memory_bytes": 400 * KIBIBYTE,
        "memory_limit_bytes": 1_000 * KIBIBYTE,
        "pressure_cpu_share": 0.125,
        "pressure_memory_share": 0.0,
        "pressure_io_share": 0.02,
        "throttled_us": 30.0,
        "nr_periods": 7,
        "nr_throttled": 2,
        "disk_read_bytes_per_s": 10 * 512,
        "disk_write_bytes_per_s": 4 * 512,
        "network_receive_bytes_per_s": 500,
        "network_send_bytes_per_s": 900,
        "swap_in_bytes_per_s": 3 * PAGE_BYTES,
        "own_memory_bytes": 50 * PAGE_BYTES,
        "own_threads": 9,
        "training_cpu_share": 0.5,
        "training_runqueue_share": 0.25,
        "training_blocked_share": 0.25,
        "read_bytes_per_s": 3_000,  # 2,000 of its own and 1,000 of the worker
        "write_bytes_per_s": 500,
        "read_chars_per_s": 6_000,
        "write_chars_per_s": 700,
        "voluntary_switches_per_s": 25,
        "workers": 1,
        "worker_cpu_cores": pytest.approx(100 / os.sysconf("SC_CLK_TCK")),
        "worker_runqueue_share": 0.2,
        "worker_blocked_share": pytest.approx(0.7),
        "worker_memory_bytes": 100 * KIBIBYTE,
        "worker_switches_per_s": 5,
    }
    assert _gaps(collector) == {}


def test_slow_values_come_once_a_second_and_the_others_in_every_row(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    sample = _sampling(HostCollector(TRAINER, root=tmp_path, clock=clock), clock)

    rows = [sample(0.1) for _ in range(21)]

    assert [position for position, row in enumerate(rows) if row["load_1m"] is not None] == [0, 10, 20]
    assert all(row["own_threads"] == 9 for row in rows)
    assert [row["training_blocked_share"] for row in rows] == [None, *[1.0] * 20]


def test_a_file_that_is_not_there_is_asked_once_and_its_gap_says_which(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    (tmp_path / "proc/pressure/io").unlink()
    (tmp_path / f"proc/self/task/{TRAINER}/schedstat").unlink()
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)
    sample = _sampling(collector, clock)

    sample()
    _write(tmp_path, {"proc/pressure/io": "some avg10=2.00 avg60=1.00 avg300=0.00 total=9\n"})
    rows = [sample(0.1) for _ in range(10)]

    assert rows[-1]["pressure_cpu_share"] == 0.125
    assert {row["pressure_io_share"] for row in rows} == {None}
    gaps = _gaps(collector)
    assert gaps["pressure_io_share"] == (f"{tmp_path}/proc/pressure/io: No such file or directory", 2)
    assert gaps["training_cpu_share"][1] == 11
    assert set(gaps) == {"pressure_io_share", "training_cpu_share", "training_runqueue_share", "training_blocked_share"}


def test_a_kernel_without_scheduling_times_is_no_thread_that_never_waits(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    _write(tmp_path, {f"proc/self/task/{TRAINER}/schedstat": "0 0 0\n"})
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)

    row = _sampling(collector, clock)(0)

    assert row["training_runqueue_share"] is None
    assert _gaps(collector)["training_runqueue_share"][0] == "schedstat absent: the kernel keeps no scheduling times"


def test_a_worker_that_ended_and_one_that_came_make_no_rate_negative_or_huge(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    _worker(tmp_path, WORKER, 9 * SECOND, 0, ticks=900, switches=900, read=9_000)
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)
    collector.set_workers([WORKER])
    sample = _sampling(collector, clock)
    sample()

    _worker(tmp_path, OTHER_WORKER, 7 * SECOND, 0, ticks=700, switches=700, read=7_000)
    collector.set_workers([OTHER_WORKER])
    changed = sample(1)
    _worker(tmp_path, OTHER_WORKER, 7 * SECOND + SECOND // 2, 0, ticks=750, switches=710, read=7_500)
    after = sample(1)

    assert [changed[name] for name in ("workers", "worker_cpu_cores", "read_bytes_per_s")] == [1, 0.0, 0]
    assert after["worker_cpu_cores"] == pytest.approx(50 / os.sysconf("SC_CLK_TCK"))
    assert [after[name] for name in ("read_bytes_per_s", "worker_switches_per_s", "worker_blocked_share")] == [500, 10, 0.5]


def test_without_workers_their_shares_are_missing_and_their_sums_nothing(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)
    collector.set_workers([])
    sample = _sampling(collector, clock)

    sample()
    row = sample(1)
    collector.close()

    assert [row[name] for name in ("workers", "worker_cpu_cores", "worker_memory_bytes")] == [0, 0.0, 0]
    assert row["worker_blocked_share"] is None
    assert _gaps(collector) == {}


def test_many_workers_are_told_of_in_fewer_rows_and_their_rates_span_the_rows_between(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    pids = [WORKER + number for number in range(6)]
    for pid in pids:
        _worker(tmp_path, pid, 1_000, 0, ticks=0)
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)
    collector.set_workers(pids)
    sample = _sampling(collector, clock)
    sample()

    for pid in pids:
        _worker(tmp_path, pid, 1_000 + SECOND // 10, 0, ticks=10)
    rows = [sample(0.1) for _ in range(3)]

    assert [row["workers"] for row in rows] == [None, None, 6]
    assert rows[2]["worker_cpu_cores"] == pytest.approx(6 * 10 / os.sysconf("SC_CLK_TCK") / 0.3)
    assert rows[2]["worker_blocked_share"] == pytest.approx(2 / 3)


def test_workers_of_which_nobody_told_are_a_gap(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)

    row = _sampling(collector, clock)(0)
    collector.close()

    assert row["workers"] is None
    assert _gaps(collector)["workers"] == ("nothing told which processes load data", 1)


def test_another_thread_may_be_named_as_the_one_that_trains(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    collector = HostCollector(1_234, root=tmp_path, clock=clock)
    sample = _sampling(collector, clock)
    sample()

    collector.set_training_thread(TRAINER)
    sample(1)
    _second(tmp_path)
    row = sample(1)

    assert row["training_runqueue_share"] == 0.25
    assert row["voluntary_switches_per_s"] == 25


def test_where_there_is_no_proc_psutil_gives_what_it_can_and_the_rest_is_a_gap(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    collector = HostCollector(root=tmp_path)
    collector.set_workers([os.getpid()])
    collector.collect(0)
    time.sleep(0.1)  # the system counts CPU in hundredths of a second

    (row,) = collector.collect(2 * SECOND)["host_samples"]
    sampled = dict(zip(COLUMNS["host_samples"], row, strict=True))
    gaps = _gaps(collector)
    missing = {name for name, value in sampled.items() if value is None}

    assert sampled["own_memory_bytes"] > 0
    assert sampled["own_cpu_cores"] >= 0
    assert sampled["memory_limit_bytes"] > sampled["memory_bytes"] > 0
    assert sampled["workers"] == 1
    assert gaps["training_blocked_share"] == ("this system has no /proc", 2)
    assert missing == set(gaps)


@on_linux
def test_the_training_thread_of_this_machine_is_seen_working_and_sleeping() -> None:
    collector = HostCollector()
    collector.set_workers([])
    collector.collect(time.perf_counter_ns())
    until = time.perf_counter() + 0.2
    while time.perf_counter() < until:
        sum(range(1_000))
    (busy,) = collector.collect(time.perf_counter_ns())["host_samples"]
    time.sleep(0.2)
    (asleep,) = collector.collect(time.perf_counter_ns())["host_samples"]
    collector.close()

    names = COLUMNS["host_samples"]
    working, sleeping = (dict(zip(names, row, strict=True)) for row in (busy, asleep))
    assert working["training_cpu_share"] + working["training_runqueue_share"] > 0.8
    assert sleeping["training_blocked_share"] > 0.8
    assert working["own_cpu_cores"] > sleeping["own_cpu_cores"]
    assert working["own_memory_bytes"] > 1 << 20


@on_linux
def test_a_worker_of_this_machine_is_counted_until_it_ends_also_before_it_is_waited_for() -> None:
    code = "import sys\nprint('ready', flush=True)\nwhile True: sum(range(1000))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        collector = HostCollector(slow_interval_s=0.1)
        collector.set_workers([worker.pid])
        names = COLUMNS["host_samples"]
        collector.collect(0)
        time.sleep(0.3)
        (row,) = collector.collect(SECOND)["host_samples"]
        running = dict(zip(names, row, strict=True))
        worker.kill()
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # it has ended and stays in the table of processes
        collector.collect(2 * SECOND)
        (row,) = collector.collect(3 * SECOND)["host_samples"]
        ended = dict(zip(names, row, strict=True))
        collector.close()

    assert running["workers"] == 1
    assert 0 < running["worker_cpu_cores"] <= 1.1
    assert running["worker_memory_bytes"] > 1 << 20
    assert (ended["workers"], ended["worker_memory_bytes"]) == (0, 0)
    assert not [gap for gap in _gaps(collector) if "worker" in gap]


@on_linux
def test_a_worker_of_this_machine_that_is_gone_leaves_the_next_row() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        collector = HostCollector()
        collector.set_workers([worker.pid, os.getpid()])
        collector.collect(0)
        (row,) = collector.collect(SECOND)["host_samples"]
        before = dict(zip(COLUMNS["host_samples"], row, strict=True))
        worker.kill()
    (row,) = collector.collect(2 * SECOND)["host_samples"]
    after = dict(zip(COLUMNS["host_samples"], row, strict=True))
    collector.close()

    assert (before["workers"], after["workers"]) == (2, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and later, of a process with threads
def test_a_forked_child_gets_no_rows(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)
    collector.collect(0)

    child = os.fork()
    if child == 0:
        os._exit(0 if collector.collect(SECOND) == {} else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert collector.collect(SECOND)["host_samples"]


@on_linux
def test_closing_gives_every_file_back() -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    collector = HostCollector(threading.get_native_id())
    collector.set_workers([os.getpid()])
    collector.collect(0)
    during = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as above

    collector.close()

    assert len(during) > len(before) + 10
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_reading_all_cores_comes_once_a_second_where_it_is_dear(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _first(tmp_path)
    monkeypatch.setattr(sys.modules["perfnb.record.host"], "DEAR_NS", -1)
    sample = _sampling(HostCollector(TRAINER, root=tmp_path, clock=clock), clock)
    sample()
    _second(tmp_path)

    rows = [sample(0.1) for _ in range(10)]

    assert [row["cpu_share"] for row in rows] == [*[None] * 9, 0.5]


def test_limits_that_change_while_a_job_runs_are_seen_within_a_minute(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    _write(tmp_path, {"sys/fs/cgroup/memory.max": f"{700 * KIBIBYTE}\n", "sys/fs/cgroup/memory.current": f"{90 * KIBIBYTE}\n"})
    sample = _sampling(HostCollector(TRAINER, root=tmp_path, clock=clock), clock)

    before = sample()
    _write(tmp_path, {"sys/fs/cgroup/memory.max": f"{800 * KIBIBYTE}\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"})
    after = sample(61)

    assert (before["memory_bytes"], before["memory_limit_bytes"]) == (90 * KIBIBYTE, 700 * KIBIBYTE)
    assert (after["memory_limit_bytes"], after["cgroup_cpu_limit"]) == (800 * KIBIBYTE, 0.5)


def test_a_group_that_counts_no_quota_is_a_gap_of_throttling_only(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    (tmp_path / "sys/fs/cgroup/cpu.stat").write_text("usage_usec 1\n", encoding="utf-8")
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)

    row = _sampling(collector, clock)(0)

    assert row["throttled_us"] is None
    assert row["memory_bytes"] == 400 * KIBIBYTE
    assert _gaps(collector)["nr_periods"] == ("no control group counts the use of a CPU quota", 1)


def test_in_a_container_disks_are_known_by_name_and_every_interface_counts(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    for path in sorted((tmp_path / "sys").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    sample = _sampling(HostCollector(TRAINER, root=tmp_path, clock=clock), clock)
    (tmp_path / "sys").rmdir()

    sample()
    _second(tmp_path)
    row = sample(1)

    assert row["disk_read_bytes_per_s"] == 10 * 512
    assert row["network_receive_bytes_per_s"] == 500 + 99  # eth0 and docker0


def test_a_part_that_cannot_be_parsed_is_a_gap_and_the_row_comes_all_the_same(tmp_path: Path, clock: Clock) -> None:
    _first(tmp_path)
    _write(tmp_path, {"proc/stat": "intr 1 2\n", "proc/vmstat": "nr_free_pages 7\n"})
    collector = HostCollector(TRAINER, root=tmp_path, clock=clock)

    row = _sampling(collector, clock)(0)

    assert row["own_threads"] == 9
    assert {"cpu_share", "swap_in_bytes_per_s"} <= set(_gaps(collector))
