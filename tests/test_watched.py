"""What a watched cell says: its card, or in the exact words why there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from perfnb.findings import Diagnosis
from perfnb.prediction import Prediction, Unknown
from perfnb.record.recorder import NO_TORCH
from perfnb.run import Machine, Recording, Run
from perfnb.tables import conform
from perfnb.watched import Judged, WatchedCell, judged, noise_of

LARGEST_CARD_BYTES = 25_000


def run_of(count: int, **others: Any) -> Run:
    """A run of 50 ms steps of which the loader takes 30 ms, as a recorder makes it."""
    numbers = range(count)
    steps = pd.DataFrame({"rank": 0, "step": numbers, "start_us": [5e4 * each for each in numbers], "duration_us": 5e4})
    parts = {"data": 3e4, "forward": 5e3, "backward": 1e4, "optimizer": 2e3, "other": 3e3}
    phases = pd.DataFrame(
        [
            {"rank": 0, "step": number, "phase": phase, "wall_us": time, "cpu_us": time, "runqueue_us": 0.0, "blocked_us": 0.0}
            for number in numbers
            for phase, time in parts.items()
        ]
    )
    named = {
        "config": {"num_workers": 0, "batch_size": 8},
        "machine": Machine(cpu_capacity=4.0),
        "recordings": (Recording(0, "finished", hook_us_per_step=150.0),),
        "signals": frozenset({"steps", "phases", "loader"}),
    }
    tables = {"steps": conform("steps", steps)} | ({"phases": conform("phases", phases)} if count else {})
    return Run(**tables, **named | others)  # type: ignore[arg-type]


def pressed(share: float, cpu_share: float, own_cores: float) -> pd.DataFrame:
    """Samples of a host on which tasks wait for a core during this share of the time."""
    row = {"rank": 0, "time_us": 0.0, "pressure_cpu_share": share, "cpu_share": cpu_share, "own_cpu_cores": own_cores}
    return conform("host_samples", pd.DataFrame([row]))


def said(cell: WatchedCell, config: dict[str, Any] | None = None) -> list[str]:
    return judged(cell, config).card.plain.splitlines()


def size_of(answer: Judged) -> int:
    """Bytes of the card as a notebook stores it."""
    return len(json.dumps(answer.card.mimebundle()))


def test_a_cell_that_trained_gets_the_card_with_what_was_watched_and_at_what_cost() -> None:
    machine = Machine(("H200",), (1 << 37,), 4.0)

    lines = said(WatchedCell(run_of(60, machine=machine), 4.31, torch_version="2.13.0"))

    assert lines[0].startswith("perfnb  [!] Preparing samples on the CPU takes 60 % of each step")
    assert "watched 60 steps in 4.3 s, cost of watching 0.30 % (calibrated), torch 2.13.0, 1 x H200" in lines
    assert "next    %perfnb_whatif    %perfnb_explore    %perfnb_apply" in lines


def test_the_diagnosis_and_the_suggestions_are_handed_on() -> None:
    answer = judged(WatchedCell(run_of(60), 3.0))

    assert isinstance(answer.diagnosis, Diagnosis)
    assert answer.diagnosis["slow_transform"].severity == pytest.approx(0.6)
    assert isinstance(answer.suggestions[0].prediction, Prediction)


def test_the_config_that_is_given_replaces_the_one_of_the_run() -> None:
    shown = said(WatchedCell(run_of(60), 3.0), {"num_workers": 1})

    assert any("num_workers 1 -> " in line for line in shown)


def test_a_card_is_small_enough_to_be_stored() -> None:
    answer = judged(WatchedCell(run_of(60, host_samples=pressed(0.5, 1.0, 1.0)), 4.3))

    assert size_of(answer) <= LARGEST_CARD_BYTES


def test_a_card_with_much_to_say_leaves_its_charts_out_and_keeps_their_numbers() -> None:
    notes = tuple(f"a sentence of the reader, number {number} of many, on what it left out and why" for number in range(60))

    card = judged(WatchedCell(run_of(60, notes=notes), 4.3)).card

    assert "<img" in judged(WatchedCell(run_of(60), 4.3)).card.html
    assert "<img" not in card.html
    assert "Parts of a step" in card.html


def test_without_a_step_it_says_how_to_mark_one() -> None:
    cell = WatchedCell(Run(), 2.0)

    assert said(cell)[0] == (
        "perfnb  [?] No optimizer step ended here. Hand-written updates: call perfnb.step() once per iteration"
    )


def test_forward_passes_that_no_optimizer_followed_are_counted() -> None:
    cell = WatchedCell(Run(notes=("no optimizer step ended (12 forward passes were seen)", "the loader was exhausted")), 2.0)

    shown = said(cell)

    assert shown[0] == (
        "perfnb  [?] No optimizer step ended here (12 forward passes seen). "
        "Hand-written updates: call perfnb.step() once per iteration"
    )
    assert shown[-2:] == ["Notes (1)", "- the loader was exhausted"]


@pytest.mark.parametrize(
    ("count", "seconds", "sentence"),
    [
        (6, 4.0, "Too short to judge: 6 steps, 10 needed"),
        (1, 4.0, "Too short to judge: 1 step, 10 needed"),
        (10, 4.0, "Too short to judge: 9 steady steps, 10 needed"),
        (60, 0.42, "Too short to judge: 0.4 s, 1 s needed"),
    ],
)
def test_a_cell_that_was_too_short_lists_its_steps_and_finds_nothing(count: int, seconds: float, sentence: str) -> None:
    answer = judged(WatchedCell(run_of(count), seconds))

    shown = answer.card.plain.splitlines()
    assert shown[0] == f"perfnb  [?] {sentence}"
    assert shown[1].startswith("steps   50.0 ms")
    assert shown[-1].startswith("watched ")
    assert "Waiting for data" not in answer.card.plain
    assert answer.suggestions == ()


def test_eleven_steps_of_a_second_in_all_are_enough() -> None:
    assert said(WatchedCell(run_of(11), 1.0))[0].startswith("perfnb  [!]")


def test_with_a_trace_three_steady_steps_are_enough() -> None:
    run = run_of(4)
    traced = replace(run, steps=run.steps.assign(is_profiled=True))

    assert said(WatchedCell(traced, 1.0))[0].startswith("perfnb  [!]")
    assert said(WatchedCell(run, 1.0))[0] == "perfnb  [?] Too short to judge: 4 steps, 10 needed"


def test_of_many_short_steps_twenty_are_listed() -> None:
    shown = said(WatchedCell(run_of(60), 0.5))[1]

    assert shown.count("50.0 ms") == 20
    assert shown.endswith(" and 40 more")


def test_a_missing_torch_is_named_with_what_to_do_and_the_host_still_speaks() -> None:
    run = Run(host_samples=pressed(0.34, 0.9, 1.0), notes=(NO_TORCH,))

    shown = said(WatchedCell(run, 2.0, torch="not installed"))

    assert "host    CPU busy 90 % of the time, something waited for a core 34 % of the time" in shown
    assert any(
        "torch is not installed: no step times. pip install 'perfnb[torch]' (no GPU here: environment.md first)" in line
        for line in shown
    )
    assert not any("Notes" in line for line in shown)


def test_a_torch_that_the_cell_imported_itself_asks_for_a_second_run() -> None:
    cell = WatchedCell(Run(), 2.0, torch="imported late")

    assert said(cell)[0] == "perfnb  [?] torch was imported inside this cell: run the cell once more"


def test_another_process_is_named_as_not_seen() -> None:
    assert said(WatchedCell(Run(), 2.0, other_process="%%bash"))[0] == "perfnb  [?] %%bash runs another process: not seen"


@pytest.mark.parametrize(("number", "words"), [(1, "1 child process not watched"), (4, "4 child processes not watched")])
@pytest.mark.parametrize("count", [0, 60])
def test_child_processes_are_counted_with_what_to_do(number: int, words: str, count: int) -> None:
    shown = said(WatchedCell(run_of(count), 2.0, child_processes=number))

    assert any(line.strip() == f"{words}: record in the script, read the run folder" for line in shown)


def test_the_missing_gpu_is_said_where_it_was_not_said_before() -> None:
    run = run_of(60, missing={"gpu_samples": "NVML Shared Library Not Found"})

    first, second = said(WatchedCell(run, 3.0, says_no_device=True)), said(WatchedCell(run, 3.0))

    sentence = "        No NVIDIA GPU (driver library not found): device detectors not measured"
    assert sentence in first
    assert sentence not in second


def test_a_failed_cell_shows_the_diagnosis_of_the_steps_before_it() -> None:
    shown = said(WatchedCell(run_of(41), 3.21, error="ZeroDivisionError"))

    assert shown[0] == "perfnb  [x] Cell failed after 3.2 s (ZeroDivisionError). Diagnosis of the 41 steps before it:"
    assert shown[1].startswith("perfnb  [!] Preparing samples on the CPU takes")


def test_a_cell_that_failed_before_or_soon_after_its_first_step_says_so() -> None:
    early = said(WatchedCell(Run(), 0.1, error="NameError"))
    soon = said(WatchedCell(run_of(3), 0.2, error="KeyboardInterrupt"))

    assert early[0] == "perfnb  [x] Cell failed after 0.1 s (NameError). No optimizer step ended before it"
    assert soon[0] == "perfnb  [x] Cell failed after 0.2 s (KeyboardInterrupt). Too short to judge: 3 steps, 10 needed"


@pytest.mark.parametrize("count", [3, 41])
def test_after_running_out_of_memory_the_memory_leads(count: int) -> None:
    gibibyte = 1 << 30
    row = {"rank": 0, "step": 2, "device": 0, "peak_allocated_bytes": 70 * gibibyte, "peak_reserved_bytes": 78 * gibibyte}
    run = run_of(
        count,
        allocator=conform("allocator", pd.DataFrame([row | {"time_us": 0.0}])),
        machine=Machine(("H100",), (80 * gibibyte,), 4.0),
    )

    shown = said(WatchedCell(run, 3.2, error="OutOfMemoryError", is_out_of_memory=True))

    assert "(OutOfMemoryError)" in shown[0]
    assert shown[1] == "memory  peak 78.0 GiB of 80.0 GiB reserved, 70.0 GiB allocated"


def test_a_busy_host_keeps_the_verdict_and_takes_back_the_predictions() -> None:
    answer = judged(WatchedCell(run_of(60, host_samples=pressed(0.34, 0.9, 1.0)), 3.0, host_cores=4))

    assert answer.card.plain.startswith("perfnb  [!] Preparing samples on the CPU takes")
    assert answer.suggestions
    assert all(isinstance(each.prediction, Unknown) for each in answer.suggestions)
    assert "with other processes: 2.6 cores, this job 1.0" in answer.card.plain


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (pressed(0.20, 0.9, 1.0), ""),
        (pressed(float("nan"), 0.9, 1.0), ""),
        (
            pressed(0.5, 1.0, 3.5),
            (
                "the host is busy (something waited for a core 50 % of the time) with this job itself: "
                "3.5 cores, other processes 0.5"
            ),
        ),
        (pressed(0.5, float("nan"), 1.0), "the host is busy (something waited for a core 50 % of the time)"),
    ],
)
def test_the_load_is_named_by_whose_it_is(samples: pd.DataFrame, sentence: str) -> None:
    assert noise_of(Run(host_samples=samples), 4) == sentence


def test_hostile_names_stay_text() -> None:
    run = run_of(60, machine=Machine(("<script>alert(1)</script>",), (1,), 4.0))

    card = judged(WatchedCell(run, 3.0, error="<img onerror=x>", torch_version="<b>")).card

    assert "<script>" not in card.html
    assert "<img onerror" not in card.html
    assert "<b>" not in card.html
