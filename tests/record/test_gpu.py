"""The GPU collector against pynvml's own binding on C callbacks, and against a machine without a driver."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from perfnb.record.gpu import FORKED, GpuCollector
from perfnb.record.nvml import NOT_LISTED, OLD_MEMORY, UNDER_MIG, WITHHELD
from perfnb.record.rows import COLUMNS

pynvml = pytest.importorskip("pynvml")

SECOND = 1_000_000_000
GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, UNKNOWN, UNINITIALIZED = 15, 4, 3, 999, 1


def _callbacks() -> ModuleType:
    specification = importlib.util.spec_from_file_location("nvml_callbacks", Path(__file__).with_name("nvml_callbacks.py"))
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


nvml = _callbacks()
Install = Callable[..., Any]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a library of callbacks in the place of the driver's."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    kept = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount

    def put(rows: list[Any], missing: tuple[str, ...] = ()) -> Any:
        library = nvml.CallbackLibrary(rows, missing)
        pynvml._nvmlGetFunctionPointer_cache.clear()
        monkeypatch.setattr(pynvml, "nvmlLib", library)
        return library

    yield put
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml._nvmlGetFunctionPointer_cache.update(kept[1])
    pynvml.nvmlLib, pynvml._nvmlLib_refcount = kept[0], kept[2]


def _polls(collector: GpuCollector, *seconds: float) -> list[list[dict[str, Any]]]:
    polled = [collector.collect(int(second * SECOND)).get("gpu_samples", []) for second in seconds]
    return [[dict(zip(COLUMNS["gpu_samples"], row, strict=True)) for row in rows] for rows in polled]


def _gaps(collector: GpuCollector) -> dict[tuple[str | None, int | None], tuple[str, int]]:
    return {(column, device): (reason, count) for _, column, device, reason, _, count in collector.gaps.changed()}


def test_the_private_names_of_pynvml_that_these_tests_replace_are_where_they_were() -> None:
    moved = [name for name in ("nvmlLib", "_nvmlGetFunctionPointer_cache", "_nvmlLib_refcount") if not hasattr(pynvml, name)]

    assert not moved, f"nvidia-ml-py has moved {moved}: the fixture `install` has to follow"


def test_every_column_is_filled_in_the_units_of_its_name_once_two_monitoring_samples_were_taken(install: Install) -> None:
    install(nvml.gpus(nvml.healthy_gpu()))
    collector = GpuCollector()

    (first,), (second,) = _polls(collector, 0, 1)

    assert second == {
        "gpu": 0,
        "uuid": "GPU-0000",
        "time_ns": SECOND,
        "utilization_share": 0.87,
        "memory_utilization_share": 0.42,
        "memory_used_bytes": 30_000,
        "memory_total_bytes": 80_000,
        "memory_reserved_bytes": 500,
        "process_memory_bytes": 25_000,
        "power_w": 412.5,
        "power_limit_w": 700.0,
        "energy_j": 123_456.789,
        "temperature_c": 61.0,
        "sm_clock_mhz": 1980.0,
        "memory_clock_mhz": 2619.0,
        "throttle_reasons": 0x24,
        "sm_active_share": 0.5,
        "tensor_active_share": 0.25,
        "dram_active_share": 0.75,
        "pcie_receive_bytes_per_s": 2.0 * (1 << 20),
        "pcie_send_bytes_per_s": 1.0 * (1 << 20),
        "nvlink_receive_bytes_per_s": 3.0 * (1 << 20),
        "nvlink_send_bytes_per_s": 4.0 * (1 << 20),
    }
    assert {column for column, value in first.items() if value is None} == {*nvml_columns()}
    assert not _gaps(collector)


def nvml_columns() -> list[str]:
    """Columns that need two samples."""
    return [name for name in COLUMNS["gpu_samples"] if "_active_" in name or name.startswith(("pcie", "nvlink"))]


def test_a_metric_that_is_not_supported_is_missing_with_its_reason_and_asked_once_only(install: Install) -> None:
    library = install(nvml.gpus(nvml.failing(nvml.healthy_gpu(), NOT_SUPPORTED, "nvmlDeviceGetUtilizationRates")))
    collector = GpuCollector()

    polls = _polls(collector, 0, 1, 2)

    assert [row["utilization_share"] for (row,) in polls] == [None, None, None]
    assert polls[2][0]["power_w"] == 412.5
    assert library.calls["nvmlDeviceGetUtilizationRates"] == 1
    assert _gaps(collector) == {
        ("utilization_share", 0): ("Not Supported", 3),
        ("memory_utilization_share", 0): ("Not Supported", 3),
    }


def test_without_permission_a_metric_is_dropped_and_the_others_stay(install: Install) -> None:
    install(nvml.gpus(nvml.failing(nvml.healthy_gpu(), NO_PERMISSION, "nvmlGpmSampleGet")))
    collector = GpuCollector()

    ((row,),) = _polls(collector, 0)

    assert row["sm_active_share"] is None
    assert row["utilization_share"] == 0.87
    assert _gaps(collector)["sm_active_share", 0] == ("Insufficient Permissions", 1)


def test_an_older_driver_is_asked_the_older_way(install: Install) -> None:
    newer = (
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlGpmQueryDeviceSupport",
    )
    rows = nvml.healthy_gpu()
    rows.append((0, 0, "nvmlDeviceGetComputeRunningProcesses_v2", 0, 0, [0, 24_000], ""))
    rows.append((0, 0, "nvmlDeviceGetPowerManagementLimit", 0, 0, [650_000], ""))
    install(nvml.gpus(rows), missing=newer)
    collector = GpuCollector()

    (_, (row,)) = _polls(collector, 0, 1)

    assert (row["memory_used_bytes"], row["memory_total_bytes"], row["memory_reserved_bytes"]) == (30_500, 80_000, None)
    assert (row["power_w"], row["power_limit_w"], row["temperature_c"]) == (400.0, 650.0, 60.0)
    assert (row["throttle_reasons"], row["process_memory_bytes"]) == (0x04, 24_000)
    gaps = _gaps(collector)
    assert gaps.pop(("memory_reserved_bytes", 0)) == (OLD_MEMORY, 2)
    assert gaps == {(column, 0): ("Function Not Found", 2) for column in nvml_columns()}


def test_a_name_that_this_version_of_pynvml_lacks_is_like_a_driver_that_lacks_it(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(nvml.gpus(nvml.healthy_gpu()))
    monkeypatch.delattr(pynvml, "NVML_FI_DEV_POWER_INSTANT")
    monkeypatch.delattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption")
    collector = GpuCollector()

    ((row,),) = _polls(collector, 0)

    assert (row["power_w"], row["energy_j"]) == (400.0, None)
    assert "nvmlDeviceGetTotalEnergyConsumption" in _gaps(collector)["energy_j", 0][0]


def test_a_lost_gpu_rests_is_tried_once_a_minute_and_comes_back(install: Install) -> None:
    rows = nvml.failing(nvml.healthy_gpu(), GPU_IS_LOST, tick=1)
    library = install(nvml.gpus(rows + nvml.healthy_gpu(tick=3)))
    collector = GpuCollector()

    polls = []
    for tick, second in ((0, 0), (1, 1), (1, 2), (2, 30), (2, 62), (3, 90), (3, 123), (3, 124)):
        library.tick = tick
        polls.extend(_polls(collector, second))

    assert [len(poll) for poll in polls] == [1, 0, 0, 0, 0, 0, 1, 1]
    assert polls[-1][0]["sm_active_share"] == 0.5
    assert library.calls["nvmlDeviceGetHandleByUUID"] == 2  # at 62 s, when it was still lost, and at 123 s
    assert _gaps(collector) == {(None, 0): ("GPU is lost", 5)}  # one for each row that is not there


def test_one_dead_gpu_of_two_leaves_the_other_its_rows(install: Install) -> None:
    install(nvml.gpus(nvml.failing(nvml.healthy_gpu(0), GPU_IS_LOST), nvml.healthy_gpu(1)))
    collector = GpuCollector()

    polls = _polls(collector, 0, 1)

    assert [[row["gpu"] for row in poll] for poll in polls] == [[1], [1]]
    assert _gaps(collector) == {(None, 0): ("GPU is lost", 3)}


def test_a_metric_whose_unknown_error_laid_the_gpu_to_rest_twice_is_dropped(install: Install) -> None:
    install(nvml.gpus(nvml.failing(nvml.healthy_gpu(), UNKNOWN, "nvmlDeviceGetUtilizationRates")))
    collector = GpuCollector()

    polls = _polls(collector, 0, 30, 61, 62)

    assert [len(poll) for poll in polls] == [0, 0, 1, 1]
    assert polls[3][0]["power_w"] == 412.5
    gaps = _gaps(collector)
    assert gaps[None, 0] == ("Unknown Error (utilization)", 2)
    assert gaps["utilization_share", 0] == ("Unknown Error", 2)


def test_a_passing_error_costs_one_value(install: Install) -> None:
    rows = nvml.failing(nvml.healthy_gpu(), 20, "nvmlDeviceGetPowerUsage", "nvmlDeviceGetFieldValues", tick=1)
    library = install(nvml.gpus(rows + nvml.healthy_gpu(tick=2)))
    collector = GpuCollector()

    powers = []
    for tick in range(3):
        library.tick = tick
        powers.append(_polls(collector, tick)[0][0]["power_w"])

    assert powers == [412.5, None, 412.5]
    assert _gaps(collector) == {("power_w", 0): ("Insufficient Memory", 1)}


def test_under_mig_there_is_no_utilisation_and_the_reason_says_so(install: Install) -> None:
    install(nvml.gpus(nvml.giving(nvml.healthy_gpu(), "nvmlDeviceGetMigMode", [1, 1])))
    collector = GpuCollector()

    ((row,),) = _polls(collector, 0)

    assert row["utilization_share"] is None
    assert row["memory_used_bytes"] == 30_000
    gaps = _gaps(collector)
    assert gaps["utilization_share", 0] == gaps["sm_active_share", 0] == (UNDER_MIG, 1)


def test_memory_of_a_named_mig_instance_is_the_instances(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = [
        (0, 7, "nvmlDeviceGetHandleByIndex_v2", 0, 0, [], ""),
        (0, 7, "nvmlDeviceGetUUID", 0, 0, [], "MIG-abc"),
        (0, 7, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", 0, 0, [0], ""),
        (0, 7, "nvmlDeviceGetMemoryInfo_v2", 0, 0, [10_000, 50, 8_950, 1_000], ""),
    ]
    install([*nvml.gpus(nvml.giving(nvml.healthy_gpu(), "nvmlDeviceGetMigMode", [1, 1])), *instance])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-abc")
    collector = GpuCollector()

    ((row,),) = _polls(collector, 0)

    assert (row["gpu"], row["uuid"]) == (0, "MIG-abc")
    assert (row["memory_used_bytes"], row["power_w"]) == (1_000, 412.5)


@pytest.mark.parametrize(
    ("processes", "reason"), [([0, -1], WITHHELD), ([1, 9_000], NOT_LISTED), ([], NOT_LISTED)], ids=["all ones", "others", "none"]
)
def test_memory_of_this_process_that_the_driver_does_not_tell_is_missing_with_the_reason(
    install: Install, processes: list[float], reason: str
) -> None:
    install(nvml.gpus(nvml.giving(nvml.healthy_gpu(), "nvmlDeviceGetComputeRunningProcesses_v3", processes)))
    collector = GpuCollector()

    ((row,),) = _polls(collector, 0)

    assert row["process_memory_bytes"] is None
    assert _gaps(collector) == {("process_memory_bytes", 0): (reason, 1)}


def test_pcie_is_asked_by_the_slow_call_only_where_that_is_wanted(install: Install) -> None:
    library = install(nvml.gpus(nvml.healthy_gpu()))

    _polls(GpuCollector(), 0, 1)
    untouched = library.calls["nvmlDeviceGetPcieThroughput"]
    ((row,),) = _polls(GpuCollector(pcie=True), 0)

    assert untouched == 0
    assert (row["pcie_send_bytes_per_s"], row["pcie_receive_bytes_per_s"]) == (2_000_000, 3_000_000)


def test_names_and_limits_are_asked_once_a_minute(install: Install) -> None:
    library = install(nvml.gpus(nvml.healthy_gpu()))

    _polls(GpuCollector(), *range(61))

    assert library.calls["nvmlDeviceGetEnforcedPowerLimit"] == 2
    assert library.calls["nvmlDeviceGetUUID"] == 1
    assert library.calls["nvmlDeviceGetUtilizationRates"] == 61


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", [1]),
        ("2,0", [2, 0]),
        ("GPU-1", [1]),
        ("0,7,1", [0]),
        ("nonsense", [0, 1, 2]),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_are_those_that_cuda_visible_devices_names(
    install: Install, monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[int]
) -> None:
    install(nvml.gpus(*(nvml.healthy_gpu(device) for device in range(3))))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    (rows,) = _polls(GpuCollector(), 0)

    assert [row["gpu"] for row in rows] == expected


def test_a_number_says_nothing_where_gpus_differ_and_cuda_orders_them_itself(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = [(*row[:6], "Another GPU") if row[2] == "nvmlDeviceGetName" else row for row in nvml.healthy_gpu(1)]
    install(nvml.gpus(nvml.healthy_gpu(0), other))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    (by_speed,) = _polls(GpuCollector(), 0)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    (by_bus,) = _polls(GpuCollector(), 0)

    assert [row["gpu"] for row in by_speed] == [0, 1]
    assert [row["gpu"] for row in by_bus] == [0]


def test_only_the_gpus_that_training_uses_are_asked_once_they_are_known(install: Install) -> None:
    install(nvml.gpus(nvml.healthy_gpu(0), nvml.healthy_gpu(1)))
    collector = GpuCollector()

    before = _polls(collector, 0)
    collector.set_uuids(["1000"])
    after = _polls(collector, 1)
    collector.set_uuids(["an unknown one"])
    unknown = _polls(collector, 2)

    assert [[[row["gpu"] for row in poll] for poll in polls] for polls in (before, after, unknown)] == [[[0, 1]], [[1]], [[0, 1]]]


def test_nvml_that_another_library_shut_down_is_opened_once_more(install: Install) -> None:
    rows = nvml.failing(nvml.healthy_gpu(), UNINITIALIZED, "nvmlDeviceGetMemoryInfo_v2", tick=1)
    library = install(nvml.gpus(rows + nvml.healthy_gpu(tick=2) + nvml.failing(nvml.healthy_gpu(), UNINITIALIZED, tick=3)))
    collector = GpuCollector()

    polls = []
    for tick in (0, 1, 2, 3, 4):
        library.tick = tick
        polls.extend(_polls(collector, tick))

    assert [len(poll) for poll in polls] == [1, 0, 1, 0, 0]
    assert library.calls["nvmlInitWithFlags"] == 2
    assert _gaps(collector)[None, None][1] == 2


def test_without_a_driver_it_is_said_once_and_never_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    if pynvml.nvmlLib is not None:
        pytest.skip("this machine has an NVIDIA driver")
    loaded: list[str] = []
    load = pynvml.CDLL

    def counted(name: str) -> Any:
        loaded.append(name)
        return load(name)

    monkeypatch.setattr(pynvml, "CDLL", counted)
    collector = GpuCollector()

    polls = _polls(collector, 0, 1, 200)
    collector.close()

    if polls[0]:
        pytest.skip("this machine has an NVIDIA driver")
    assert polls == [[], [], []]
    assert _gaps(collector) == {(None, None): ("NVML Shared Library Not Found", 1)}
    assert loaded == ["libnvidia-ml.so.1"]


def test_a_driver_that_is_not_loaded_is_said_once(install: Install) -> None:
    library = install([(0, -1, "nvmlInitWithFlags", 0, 9, [], ""), *nvml.gpus(nvml.healthy_gpu())])
    collector = GpuCollector()

    polls = _polls(collector, 0, 100)

    assert polls == [[], []]
    assert library.calls == {"nvmlInitWithFlags": 1}
    assert _gaps(collector) == {(None, None): ("Driver Not Loaded", 1)}


def test_closing_frees_the_samples_and_shuts_nvml_down(install: Install) -> None:
    library = install(nvml.gpus(nvml.healthy_gpu()))
    collector = GpuCollector()
    _polls(collector, 0, 1)

    collector.close()
    collector.close()

    assert library.calls["nvmlGpmSampleFree"] == library.calls["nvmlGpmSampleAlloc"] == 2
    assert library.calls["nvmlShutdown"] == 1
    assert _polls(collector, 2) == [[]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and later, of a process with threads
def test_a_forked_child_asks_nothing_and_a_collector_of_its_own_says_why(install: Install) -> None:
    library = install(nvml.gpus(nvml.healthy_gpu()))
    collector = GpuCollector()
    _polls(collector, 0)
    before = library.calls.total()
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:
        own = GpuCollector()
        polls = _polls(collector, 1) + _polls(own, 1)
        is_right = polls == [[], []] and library.calls.total() == before and _gaps(own) == {(None, None): (FORKED, 1)}
        os.write(writing, b"right" if is_right else b"wrong")
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reading, 5) == b"right"
    assert len(_polls(collector, 1)[0]) == 1
    os.close(reading)
    os.close(writing)


def test_a_monitoring_metric_that_fails_costs_its_own_column_only(install: Install) -> None:
    rows = [row for row in nvml.healthy_gpu() if row[2:4] != ("nvmlGpmMetricsGet", 60)]
    install(nvml.gpus(rows))
    collector = GpuCollector()

    (_, (row,)) = _polls(collector, 0, 1)

    assert (row["nvlink_receive_bytes_per_s"], row["nvlink_send_bytes_per_s"]) == (None, 4.0 * (1 << 20))
    assert _gaps(collector) == {("nvlink_receive_bytes_per_s", 0): ("Not Supported", 1)}


def test_a_gpu_before_hopper_says_why_its_cores_are_not_told_of(install: Install) -> None:
    install(nvml.gpus(nvml.giving(nvml.healthy_gpu(), "nvmlGpmQueryDeviceSupport", [0])))
    collector = GpuCollector()

    _polls(collector, 0, 1)

    reason, count = _gaps(collector)["tensor_active_share", 0]
    assert "Hopper" in reason
    assert count == 2


def test_a_gpu_that_never_gave_a_handle_is_found_by_its_number_when_it_comes_back(install: Install) -> None:
    library = install(nvml.gpus(nvml.failing(nvml.healthy_gpu(), GPU_IS_LOST) + nvml.healthy_gpu(tick=1)))
    collector = GpuCollector()

    first = _polls(collector, 0)
    library.tick = 1
    later = _polls(collector, 61)

    assert (first, [row["uuid"] for row in later[0]]) == ([[]], ["GPU-0000"])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (nvml.gpus(), "the driver knows of no GPU that this process may use"),
        ([(0, -1, "nvmlDeviceGetCount_v2", 0, UNKNOWN, [], "")], "Unknown Error"),
    ],
    ids=["no GPU", "no count"],
)
def test_a_driver_without_a_gpu_is_said_once(install: Install, rows: list[Any], reason: str) -> None:
    library = install(rows)
    collector = GpuCollector()

    polls = _polls(collector, 0, 100)

    assert polls == [[], []]
    assert library.calls["nvmlDeviceGetCount_v2"] == 1
    assert _gaps(collector) == {(None, None): (reason, 1)}


def test_without_the_package_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    collector = GpuCollector()

    polls = _polls(collector, 0, 1)

    assert polls == [[], []]
    assert _gaps(collector) == {(None, None): ("the package nvidia-ml-py is not installed", 1)}


def test_a_mig_instance_that_the_driver_does_not_know_leaves_all_gpus(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(nvml.gpus(nvml.healthy_gpu(0), nvml.healthy_gpu(1)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-unknown")

    (rows,) = _polls(GpuCollector(), 0)

    assert [row["gpu"] for row in rows] == [0, 1]
