"""Some hundred damaged traces with a fixed seed: only perfnb's own errors, and no event lost without a word."""

from __future__ import annotations

import gzip
import json
import random
import time
from pathlib import Path

import pytest

from benchmarks import trace_fuzz
from benchmarks.reading.fuzzing import Alarmed, Case, Limits, cases, damaged, save
from benchmarks.reading.judge import Outcome, judged, outcome_of, parsers
from benchmarks.reading.mutations import mutated
from benchmarks.reading.present import Present, entries_present, unzipped
from benchmarks.reading.seeds import handmade, of_corpus

SEEDS = list(handmade())
TRAINING = SEEDS[0][1]
TRACE = b'{"schemaVersion": 1, "traceEvents": [{"a": [1, {"]": "]}"}]}, 7, {"ph": "X"}], "traceName": "t"}'


def entries_of(text: bytes) -> int:
    """Entries of the event list of an undamaged trace."""
    return len(json.loads(text)["traceEvents"])


@pytest.mark.parametrize(
    ("content", "present"),
    [
        (TRACE, Present(3, is_whole=True)),
        (b"\xef\xbb\xbf" + TRACE, Present(3, is_whole=True)),
        (gzip.compress(TRACE[:40]) + gzip.compress(TRACE[40:]), Present(3, is_whole=True)),
        (gzip.compress(TRACE) + b"garbage", Present(3, is_whole=False)),
        (gzip.compress(TRACE, 0)[:-20], Present(3, is_whole=False)),
        (TRACE[: TRACE.index(b', {"ph"')], Present(2, is_whole=False)),
        (TRACE.replace(b"7,", b"7x,"), Present(2, is_whole=False)),
        (TRACE[:-1], Present(3, is_whole=False)),
        (b'[{"ts": 1e999}, {"n": "a\nb"}]', Present(2, is_whole=False)),
        (b"[" + b"[" * 100_000, Present(0, is_whole=False)),
        (b'{"traceEvents": [], "traceEvents": [1]}', None),
        (b"no trace", None),
    ],
)
def test_entries_are_counted_up_to_the_first_place_that_is_no_json(content: bytes, present: Present | None) -> None:
    assert entries_present(content) == present


def test_what_a_damaged_gzip_file_still_gives_is_used() -> None:
    packed = gzip.compress(random.Random(0).randbytes(50_000), 0)

    text, is_intact = unzipped(packed[:30_000])

    assert len(text) > 29_000
    assert not is_intact


@pytest.mark.no_cover
def test_every_seed_trace_is_read_whole_and_every_event_accounted_for(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    for name, text in [*SEEDS, *of_corpus()]:
        path.write_bytes(text)

        for outcome in judged(path, text, parsers()):
            assert (outcome.kind, outcome.is_count_checked) == ("read", True), (name, outcome)


def test_the_same_seed_and_number_give_the_same_damage_and_others_another() -> None:
    assert damaged(SEEDS, 3, 5) == damaged(SEEDS, 3, 5)
    assert len({damaged(SEEDS, seed, number)[1] for seed in (3, 4) for number in range(20)}) > 35


def test_damage_of_every_kind_comes_up() -> None:
    done = {name for number in range(400) for name in mutated(TRACE, random.Random(number))[1]}

    assert done >= {"flip_bits", "cut_end", "swap_slices", "duplicate_slice", "huge_number", "deep_nesting", "hostile_name"}
    assert done >= {"wrong_type", "whole_gzip", "damaged_gzip"}


@pytest.mark.no_cover
def test_some_hundred_damaged_traces_give_only_our_own_errors_and_lose_no_event(tmp_path: Path) -> None:
    alarmed = Alarmed(SEEDS, 0, parsers(), Limits(seconds=20), tmp_path)

    found = [alarmed.read(number) for number in range(300)]

    failures = [(case.number, kind, detail) for case in found for kind, detail, is_failure, _ in case.outcomes if is_failure]
    assert failures == []
    assert sum(kind.startswith("read") for case in found for kind, *_ in case.outcomes) > 50


def test_a_reader_that_takes_too_long_is_stopped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.reading.judge.read_kineto", lambda _path, **_options: time.sleep(60))

    case = Alarmed(SEEDS, 0, ("",), Limits(seconds=0.2), tmp_path).read(0)

    assert [kind for kind, *_ in case.outcomes] == ["time limit"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError("no"), "exception: ValueError in unknown"), (MemoryError(), "memory")],
)
def test_an_error_that_is_not_ours_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    def broken(_path: Path, **_options: object) -> None:
        raise error

    monkeypatch.setattr("benchmarks.reading.judge.read_kineto", broken)

    case = Alarmed(SEEDS, 0, ("",), Limits(), tmp_path).read(0)

    assert [(kind, is_failure) for kind, _, is_failure, _ in case.outcomes] == [(kind, True)]


def test_a_reader_that_loses_an_event_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(TRAINING)

    found = outcome_of(path, parsers()[0], Present(entries_of(TRAINING) + 1, is_whole=True))

    assert found.kind == "events lost"


def test_a_reader_that_invents_an_event_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(TRAINING)

    found = outcome_of(path, parsers()[0], Present(entries_of(TRAINING) - 1, is_whole=True))

    assert found.kind == "events invented"


def test_outcomes_that_are_allowed_are_runs_and_our_own_errors() -> None:
    allowed = ("read", "read up to the cut", "refused: TraceFormatError")
    forbidden = ("memory", "time limit", "hang", "crash: exit -11", "warning: RuntimeWarning", "events lost", "tiers differ")

    assert not any(Outcome(kind).is_failure for kind in allowed)
    assert all(Outcome(kind).is_failure for kind in forbidden)


@pytest.mark.slow
def test_worker_processes_read_every_case_once() -> None:
    found = list(cases(SEEDS, 0, range(60), parsers(), Limits(seconds=20), workers=2))

    assert sorted(case.number for case in found) == list(range(60))


def test_a_case_can_be_read_again_by_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    status = trace_fuzz.main(["--no-corpus", "--replay", "0"])

    assert status == 0
    assert "case 0: " in capsys.readouterr().out


def test_failed_cases_are_saved_with_what_was_done_to_them(tmp_path: Path) -> None:
    content = damaged(SEEDS, 0, 1)[1]

    path = save(Case(1, "compact", ("flip_bits",), ()), content, "exception: ValueError", tmp_path / "found")

    assert path.read_bytes() == content
    assert path.name.startswith("exception__ValueError-1.json")
