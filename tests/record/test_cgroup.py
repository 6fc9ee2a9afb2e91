"""Limits and usage of control groups in trees as Linux, containers and clusters have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perfnb.record.cgroup import ControlGroup, Throttling, cpu_capacity, usable_cores

MEBIBYTE = 1 << 20


def _tree(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


def _version_2(root: Path) -> Path:
    """A job whose own group has no quota, in a group that has one."""
    return _tree(
        root,
        {
            "proc/self/cgroup": "0::/job/step\n",
            "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\n",
            "sys/fs/cgroup/job/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/job/cpu.stat": "usage_usec 9\nnr_periods 40\nnr_throttled 10\nthrottled_usec 2500\nnr_bursts 0\n",
            "sys/fs/cgroup/job/memory.max": f"{64 * MEBIBYTE}\n",
            "sys/fs/cgroup/job/memory.current": f"{40 * MEBIBYTE}\n",
            "sys/fs/cgroup/job/memory.stat": f"anon 7\nfile 9\nactive_file 1\ninactive_file {10 * MEBIBYTE}\n",
            "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
            "sys/fs/cgroup/job/step/cpu.stat": "usage_usec 1\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
            "sys/fs/cgroup/job/step/memory.max": "max\n",
            "sys/fs/cgroup/job/step/memory.current": f"{30 * MEBIBYTE}\n",
        },
    )


def _version_1(root: Path) -> Path:
    """A container without a namespace of its own: it sees the host's path, and its own group at the mount."""
    inside = "/docker/abc"
    return _tree(
        root,
        {
            "proc/self/cgroup": f"5:memory:{inside}\n4:cpu,cpuacct:{inside}\n1:name=systemd:{inside}\n",
            "proc/self/mountinfo": (
                f"41 40 0:35 {inside} /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
                f"42 40 0:36 {inside} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
            ),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "nr_periods 8\nnr_throttled 2\nthrottled_time 3000000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{32 * MEBIBYTE}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{20 * MEBIBYTE}\n",
            "sys/fs/cgroup/memory/memory.stat": f"cache 1\ninactive_file 1\ntotal_inactive_file {4 * MEBIBYTE}\n",
        },
    )


def test_version_2_takes_the_tightest_limit_of_the_groups_above(tmp_path: Path) -> None:
    group = ControlGroup(_version_2(tmp_path))

    assert group.cpu_limit() == 1.5
    assert group.memory() == (30 * MEBIBYTE, 64 * MEBIBYTE)  # of the group with the limit, less the pages dropped first
    assert group.throttling() == Throttling(nr_periods=40, nr_throttled=10, throttled_us=2500.0)


def test_version_1_in_a_container_that_sees_the_hosts_path(tmp_path: Path) -> None:
    group = ControlGroup(_version_1(tmp_path))

    assert group.cpu_limit() == 0.5
    assert group.memory() == (16 * MEBIBYTE, 32 * MEBIBYTE)
    assert group.throttling() == Throttling(nr_periods=8, nr_throttled=2, throttled_us=3000.0)


def test_both_side_by_side_take_each_limit_from_where_its_controller_is(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        {
            "proc/self/cgroup": "2:memory:/batch\n0::/batch\n",
            "proc/self/mountinfo": (
                "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                "33 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
            ),
            "sys/fs/cgroup/memory/batch/memory.limit_in_bytes": f"{8 * MEBIBYTE}\n",
            "sys/fs/cgroup/memory/batch/memory.usage_in_bytes": f"{2 * MEBIBYTE}\n",
            "sys/fs/cgroup/unified/batch/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/unified/batch/cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_usec 7\n",
        },
    )

    group = ControlGroup(root)

    assert group.cpu_limit() == 3.0
    assert group.memory() == (2 * MEBIBYTE, 8 * MEBIBYTE)
    assert group.throttling() == Throttling(3, 1, 7.0)


def test_an_empty_tree_limits_nothing(tmp_path: Path) -> None:
    group = ControlGroup(tmp_path)

    assert (group.cpu_limit(), group.memory(), group.throttling()) == (None, None, None)


@pytest.mark.parametrize("limit", [1 << 60, 0x7FFFFFFFFFFFF000])
def test_a_memory_limit_of_an_exbibyte_is_none(tmp_path: Path, limit: int) -> None:
    root = _version_1(tmp_path)
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text(f"{limit}\n", encoding="utf-8")

    assert ControlGroup(root).memory() is None


def test_a_quota_of_minus_one_is_none(tmp_path: Path) -> None:
    root = _version_1(tmp_path)
    (root / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us").write_text("-1\n", encoding="utf-8")

    group = ControlGroup(root)

    assert group.cpu_limit() is None
    assert group.throttling() == Throttling(8, 2, 3000.0)  # its own count, though nothing holds it back now


def test_limits_that_change_are_seen_when_looked_for_anew(tmp_path: Path) -> None:
    root = _version_2(tmp_path)
    group = ControlGroup(root)
    (root / "sys/fs/cgroup/job/step/cpu.max").write_text("20000 100000\n", encoding="utf-8")

    before = group.cpu_limit()
    group.refresh()

    assert (before, group.cpu_limit()) == (1.5, 0.2)
    assert group.throttling() == Throttling(0, 0, 0.0)


def test_a_group_without_the_pages_dropped_first_is_taken_as_it_is(tmp_path: Path) -> None:
    root = _version_2(tmp_path)
    (root / "sys/fs/cgroup/job/memory.stat").unlink()

    assert ControlGroup(root).memory() == (40 * MEBIBYTE, 64 * MEBIBYTE)


def test_capacity_is_the_fewer_of_affinity_and_quota(tmp_path: Path) -> None:
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    assert cpu_capacity(_version_1(tmp_path)) == 0.5
    assert usable_cores(own + 1.0) == usable_cores(None) == own
