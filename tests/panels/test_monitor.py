"""The monitor panel: what records now is on screen, its thread ends with it, and nothing of it is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perfnb
from perfnb.charts import alternative
from perfnb.charts.monitor import monitor_chart
from perfnb.errors import RecordingError
from perfnb.panels.monitor import MonitorPanel
from perfnb.panels.monitor_text import held_back, history_frame
from perfnb.panels.ticker import LARGEST_SHARE, Ticker
from perfnb.read.newest import Device, Now, RankNow
from perfnb.record.recorder import active
from perfnb.record.run_folder import FolderSink

Shown = Callable[[Any], str]
HOSTILE = "<img src=x onerror=alert(1)></script>`|\x1b\u202e" + "x" * 1000
HOST = {"cpu_share": 0.5, "own_cpu_cores": 1.25, "memory_bytes": 2.0**30, "memory_limit_bytes": 2.0**32}
GPU = Device(
    0,
    {"utilization_share": 0.25, "memory_used_bytes": 2.0**30, "memory_total_bytes": 2.0**32, "throttle_reasons": 4},
    {"power_w": "Not Supported"},
)


def rank(number: int = 0, **changed: Any) -> RankNow:
    values: dict[str, Any] = {
        "host": "box",
        "state": "running",
        "reason": "",
        "age_s": 0.4,
        "step": 41,
        "steps_per_s": 20.0,
        "step_us": 50_000.0,
        "data_share": 0.3,
        "loss": 0.5,
        "host_values": HOST,
    }
    return RankNow(rank=number, **values | changed)


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("perfnb")]


def wait_for(is_so: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not is_so() and time.monotonic() < end:
        time.sleep(0.02)
    return is_so()


def test_the_job_the_host_and_each_gpu_have_their_numbers(shown: Shown) -> None:
    now = Now((rank(devices=(GPU,)),), 1, (("CPU of the host", -1.0, 0.4), ("CPU of the host", 0.0, 0.5)))

    panel = MonitorPanel(lambda: now)

    text = panel.snapshot().plain
    assert "monitor 1 rank, recording    newest row 0.4 s old" in text
    assert ["0", "41", "20", "50.0", "ms", "30", "%", "0.5", "running"] in [line.split() for line in text.splitlines()]
    assert "CPU of all cores" in text
    assert "1.00 GiB of 4.00 GiB" in text
    assert "power cap" in text
    assert "GPU 0, power: Not Supported" in text
    assert "CPU of the host" in shown(panel)


def test_what_is_not_read_has_a_dash_and_its_reason_never_zero() -> None:
    silent = rank(
        host_values={}, host_reasons={"": "no /proc here"}, no_devices="not available under MIG", data_share=float("nan")
    )

    text = MonitorPanel(lambda: Now((silent,), 1)).snapshot().plain

    assert "box: -: no /proc here" in text
    assert "GPU     -: not available under MIG" in text
    assert "no step waited for a batch" in text


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ((rank(state="finished"),), "[ok] 1 rank, the recording has ended"),
        ((rank(), rank(1, state="failed", reason="ZeroDivisionError: x")), "[x] 2 ranks, failed: rank 1: ZeroDivisionError: x"),
        ((rank(state="killed"),), "[x] 1 rank, rank 0 was killed"),
        ((rank(age_s=60.0),), "[?] 1 rank, recording    newest row 60.0 s old: it writes twice a second, so it hangs"),
        ((rank(step=None),), "no step ended yet: the machine alone is shown"),
    ],
)
def test_each_state_has_its_sentence(ranks: tuple[RankNow, ...], words: str) -> None:
    assert words in MonitorPanel(lambda: Now(ranks, len(ranks))).snapshot().plain


def test_of_very_many_ranks_those_behind_are_shown_and_counted() -> None:
    ranks = tuple(rank(number, step=100 + number, host=f"box{number // 8}") for number in range(64))

    text = MonitorPanel(lambda: Now(ranks, 64)).snapshot().plain

    assert "Job, those behind of 64 ranks" in text
    assert "115" in text
    assert " 116 " not in text


def test_nothing_that_records_and_a_folder_that_holds_nothing_are_said(tmp_path: Path) -> None:
    assert "Nothing records yet" in str(MonitorPanel(lambda: None))
    assert "holds no recording" in str(perfnb.monitor_panel(tmp_path))


def test_a_recorder_is_watched_live_until_it_ends_and_no_thread_is_left() -> None:
    with perfnb.record(hooks=False) as recorder:
        panel = perfnb.monitor_panel(recorder, interval_s=0.2)
        panel._repr_mimebundle_()
        assert panel.is_watching
        for _ in recorder.steps(range(3)):
            pass
        looks = panel.looks
        assert wait_for(lambda: panel.looks > looks + 1 and panel.now is not None and panel.now.ranks[0].step == 2)

    assert wait_for(lambda: "perfnb-monitor" not in threads())
    assert panel.now is not None
    assert panel.now.is_over
    assert "the recording has ended" in panel.snapshot().plain
    assert panel.stop_button.disabled


def test_the_folder_of_another_process_is_watched(tmp_path: Path) -> None:
    header = {"rank": 0, "world_size": 1, "monotonic_ns": 0, "wall_ns": time.time_ns(), "host": "box", "schema_version": 1}
    sink = FolderSink(tmp_path, header)
    sink.append("steps", [(step, step * 10**8, (step + 1) * 10**8, False, 0, 1) for step in range(2000)])
    panel = perfnb.monitor_panel(tmp_path)
    assert panel.now is not None
    assert panel.now.ranks[0].step == 1999
    assert panel.now.ranks[0].state == "running"

    sink.close("failed", "ValueError: bad")
    panel.refresh()

    assert "failed: rank 0: ValueError: bad" in panel.snapshot().plain


def test_without_a_recording_a_sampler_of_its_own_runs_until_stop() -> None:
    panel = perfnb.monitor_panel(interval_s=0.2)
    panel.start()
    assert active() is not None
    assert wait_for(lambda: bool(panel.now and panel.now.ranks[0].host_values))

    panel.stop_button.click()

    assert active() is None
    assert threads() == []
    panel.stop()
    panel.start()
    assert threads() == []
    assert "stopped" in panel.snapshot().plain


def test_a_recording_that_begins_meanwhile_takes_the_samplers_place() -> None:
    panel = perfnb.monitor_panel(interval_s=0.2)

    with perfnb.record(hooks=False) as recorder:
        for _ in recorder.steps(range(2)):
            pass
        panel.refresh()
        step = panel.now.ranks[0].step if panel.now else None
    panel.refresh()
    is_sampled_again = active() is not None
    panel.stop()

    assert step == 1
    assert is_sampled_again
    assert active() is None


def test_pause_stops_the_looks_and_continue_starts_them() -> None:
    panel = MonitorPanel(lambda: Now((rank(),), 1), interval_s=0.2)
    panel.start()

    panel.pause_button.click()
    assert not panel.is_watching
    assert panel.pause_button.description == "Continue"
    panel.pause_button.click()
    assert panel.is_watching
    panel.stop()


def test_the_thread_ends_when_no_browser_shows_the_panel_and_comes_back_with_one() -> None:
    panel = MonitorPanel(lambda: Now((rank(),), 1))
    panel.root._view_count = 1
    assert panel.is_watching

    panel.root._view_count = 0
    assert not panel.is_watching
    panel.root._view_count = 1
    assert panel.is_watching
    panel.stop()


def test_a_defect_ends_the_thread_and_stands_on_screen(shown: Shown) -> None:
    answers: list[Any] = [Now((rank(),), 1)]

    def look() -> Now:
        return answers.pop()  # type: ignore[no-any-return]

    panel = MonitorPanel(look)
    panel.start()

    assert wait_for(lambda: not panel.is_watching)
    assert "perfnb could not look: IndexError" in shown(panel)
    panel.stop()


def test_dear_looks_come_less_often() -> None:
    def dear() -> bool:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return True

    ticker = Ticker(dear, 0.01, "perfnb-test")
    ticker.start()

    assert wait_for(lambda: ticker.pause_s >= 0.02 / LARGEST_SHARE)
    ticker.stop()


def test_too_short_an_interval_is_refused() -> None:
    with pytest.raises(RecordingError, match=r"is too short: 0\.2 seconds at least"):
        perfnb.monitor_panel(interval_s=0.01)


def test_the_chart_says_its_newest_values() -> None:
    chart = monitor_chart(history_frame(Now((), None, (("GPU 0", -1.0, 0.1), ("GPU 0", 0.0, 0.5)))))

    assert alternative(chart) == "Shares over the last seconds. Now: GPU 0 50 %."
    assert "nothing sampled yet" in alternative(monitor_chart(history_frame(None)))


def test_unknown_bits_of_the_driver_are_named() -> None:
    assert held_back(0x1000) == "bit 0x1000"


def test_no_hostile_name_acts(shown: Shown, tags: Callable[[str], Any]) -> None:
    def named(name: str) -> MonitorPanel:
        device = Device(0, {"utilization_share": 0.5}, {"power_w": name})
        one = rank(host=name, state="failed", reason=name, devices=(device,), host_reasons={"pressure_cpu_share": name})
        return MonitorPanel(lambda: Now((one, rank(1, host=f"{name}2", devices=(device,))), 2), title=name)

    hostile, benign = named(HOSTILE), named("name")

    assert tags(shown(hostile)) == tags(shown(benign))
    assert tags(hostile.snapshot().html) == tags(benign.snapshot().html)
    assert len(hostile.snapshot().plain) < 6_000
