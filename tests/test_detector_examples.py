"""Every detector, checked by what stands in its own file; and the shared arithmetic, checked by breaking it."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pandas as pd
import pytest

import perfnb.claims
from perfnb.catalogue import detectors
from perfnb.claims import lost_per_step
from perfnb.detector import ConfigHint, Detector, DetectorExample, Unmeasured, detector, example
from perfnb.diagnose import diagnose
from perfnb.errors import NoStepsError
from perfnb.findings import Cleared, Finding
from perfnb.ground import Ground
from perfnb.memory_loss import measure_memory
from perfnb.run import Run
from perfnb.schemas import SCHEMAS
from perfnb.severity import measure

CASES = [pytest.param(each, case, id=f"{each.name}: {case.title}") for each in detectors() for case in each.examples]
ALL = [pytest.param(each, id=each.name) for each in detectors()]
NEIGHBOURS = [
    pytest.param(each, other, id=f"{each.name} beside {name}")
    for each in detectors()
    for name in each.not_to_confuse_with
    for other in detectors()
    if other.name == name
]


def share(found: Detector, run: Run) -> float:
    if found.unit != "time":
        return measure_memory(found, run).severity
    ground = Ground.of(run)
    lost = lost_per_step(found, found.evidence(run, ground.ledger, ground.work), ground)
    return float(lost.reindex(ground.durations.index, fill_value=0.0).sum() / ground.durations.sum())


def answer(found: Detector, run: Run) -> Cleared | Finding:
    return measure(found, Ground.of(run)) if found.unit == "time" else measure_memory(found, run)


def with_two_ranks_and_two_moments(table: pd.DataFrame) -> bool:
    moment = next(name for name in ("step", "time_us", "start_us") if name in table)
    return len(set(table["rank"])) > 1 and len(set(table[moment])) > 1


@pytest.mark.parametrize(("found", "case"), CASES)
def test_an_example_loses_what_it_says(found: Detector, case: DetectorExample) -> None:
    assert share(found, case.run) == pytest.approx(case.lost_share, abs=case.tolerance)


@pytest.mark.parametrize("found", ALL)
def test_examples_stand_on_both_sides_of_the_threshold(found: Detector) -> None:
    sides = {case.lost_share >= found.threshold(case.run) for case in found.examples}

    assert sides == {True, False}


@pytest.mark.parametrize("found", ALL)
def test_one_example_has_two_ranks_and_two_steps(found: Detector) -> None:
    tables = {"steps"} | {name for name in found.reads if name in SCHEMAS}

    assert any(with_two_ranks_and_two_moments(getattr(case.run, name)) for case in found.examples for name in tables)


@pytest.mark.parametrize("found", ALL)
def test_a_lost_table_or_signal_is_not_measured_and_named(found: Detector) -> None:
    run = found.examples[0].run
    needed = {*found.needs, *(name for name in found.reads if name in SCHEMAS)} - found.optional
    for name in needed:
        without = dataclasses.replace(run, signals=run.signals - {name}, missing={name: f"{name} was not recorded"})

        with pytest.raises(Unmeasured, match=f"{name} was not recorded"):
            found.evidence(without)


@pytest.mark.parametrize(("found", "neighbour"), NEIGHBOURS)
def test_the_examples_of_a_neighbour_leave_it_silent(found: Detector, neighbour: Detector) -> None:
    for case in neighbour.examples:
        signals = case.run.signals | {"loader", "collectives", "phases.other"}
        run = dataclasses.replace(case.run, signals=signals)
        try:
            said = answer(found, run)
        except (Unmeasured, ConfigHint, NoStepsError):
            continue

        assert isinstance(said, Cleared), f"{found.name} fires on {neighbour.name}: {case.title}"


def test_every_detector_says_where_its_threshold_comes_from_and_what_it_cannot_see() -> None:
    for found in detectors():
        assert len(found.source) > 20
        assert found.injected_by
        told = " ".join(found.doc.split())
        assert "matters because" in told, found.name
        assert "cannot" in told, found.name


def test_a_parameter_that_names_nothing_is_refused_with_what_there_is() -> None:
    decorate = detector(family="data", title="x", source="x", injected_by="x", examples=(), not_to_confuse_with=())

    def kernels_of_moon(moon: object) -> pd.DataFrame:
        raise NotImplementedError(moon)

    with pytest.raises(TypeError, match=r"reads moon: there are steps, phases"):
        decorate(kernels_of_moon)


def interval_detector() -> Detector:
    """Pauses as events, not per step: what the engine must clip and join by rank."""

    @detector(
        family="host",
        title="Pauses",
        source="none",
        injected_by="none",
        not_to_confuse_with=(),
        examples=(
            example(
                "one pause runs past the last step of rank 0, one straddles two steps of rank 1",
                lost_share=0.125,
                steps="rank step start_us duration_us\n0 7 0 100\n0 8 100 100\n1 7 0 100\n1 8 100 100",
                phases="rank step phase wall_us\n0 7 other 100\n0 8 other 100\n1 7 other 100\n1 8 other 100",
                host_ops="""rank process thread category name start_us duration_us
                            0    1       1      gc       gen2 190      20
                            1    1       1      gc       gen2 90       40""",
            ),
        ),
    )
    def pauses(host_ops: pd.DataFrame) -> pd.DataFrame:
        return host_ops.loc[host_ops["category"].eq("gc"), ["rank", "start_us", "duration_us"]]

    return pauses  # type: ignore[return-value]


def test_events_are_clipped_to_the_steps_of_their_own_rank() -> None:
    found = interval_detector()

    assert share(found, found.examples[0].run) == pytest.approx(0.125)


def test_that_example_tells_an_engine_without_clipping_and_one_without_ranks_from_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = interval_detector()
    run = found.examples[0].run
    right = perfnb.claims._clipped

    def no_clipping(_: Detector, evidence: pd.DataFrame, ground: Ground) -> pd.DataFrame:
        owner = np.where(evidence["start_us"] < 100, 7, 8)
        return (
            evidence.assign(step=owner, lost_us=evidence["duration_us"])
            .groupby(["rank", "step"], as_index=False)["lost_us"]
            .sum()
        )

    def no_rank(_: Detector, evidence: pd.DataFrame, ground: Ground) -> pd.DataFrame:
        of_rank = (dataclasses.replace(ground, steps=ground.steps[ground.steps["rank"].eq(rank)]) for rank in (0, 1))
        return pd.concat([right(found, evidence.assign(rank=rank), each) for rank, each in enumerate(of_rank)])

    monkeypatch.setattr(perfnb.claims, "_clipped", no_clipping)
    assert share(found, run) == pytest.approx(0.15)
    monkeypatch.setattr(perfnb.claims, "_clipped", no_rank)
    assert share(found, run) == pytest.approx(0.25)


def test_two_detectors_of_one_part_never_claim_more_than_it_holds() -> None:
    case = next(each for each in detectors() if each.name == "data_stall").examples[0]
    ground = Ground.of(case.run)
    found = next(each for each in detectors() if each.name == "data_stall")

    first = lost_per_step(found, found.evidence(case.run, ground.ledger), ground)
    second = lost_per_step(found, found.evidence(case.run, ground.ledger), ground)

    assert first.sum() > 0
    assert second.sum() == pytest.approx(0.0)


def test_with_ranks_that_wait_a_part_loses_what_the_critical_and_the_median_rank_both_lose() -> None:
    steps = "rank step start_us duration_us\n" + "\n".join(f"{rank} 1 0 100" for rank in range(3))
    phases = """rank step phase         wall_us
                0    1    data          10
                0    1    forward       30
                0    1    communication 60
                1    1    data          20
                1    1    forward       30
                1    1    communication 50
                2    1    data          60
                2    1    forward       40
                2    1    communication 0"""
    case = example("three ranks", lost_share=0.2, signals=("loader", "collectives"), world_size=3, steps=steps, phases=phases)
    found = next(each for each in detectors() if each.name == "data_stall")

    assert share(found, case.run) == pytest.approx(0.2)  # rank 2 is critical with 60, the median is 20; 40 are imbalance


@pytest.mark.no_cover
@pytest.mark.parametrize("found", ALL)
def test_on_examples_of_each_side_of_the_threshold_every_detector_ends_in_exactly_one_list(found: Detector) -> None:
    by_loss = sorted(found.examples, key=lambda case: case.lost_share)
    for case in (by_loss[0], by_loss[-1]):
        made = diagnose(case.run)
        named = [item.detector for item in (*made.found, *made.possible, *made.cleared, *made.unmeasured, *made.hints)]

        assert sorted(named) == sorted(other.name for other in detectors())
        assert not [item for item in made.unmeasured if item.reason.startswith("failed")]


def test_fewer_than_three_steps_are_possible_never_a_finding() -> None:
    case = next(each for each in detectors() if each.name == "data_stall").examples[0]

    made = diagnose(case.run)

    assert made.findings.empty
    assert [finding.detector for finding in made.possible] == ["data_stall"]


def test_a_detector_that_raises_is_not_measured_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ledger: pd.DataFrame) -> pd.DataFrame:
        return ledger.loc[:, ["no such column"]]

    stall = next(each for each in detectors() if each.name == "data_stall")
    bad = dataclasses.replace(stall, function=broken)
    others = tuple(each for each in detectors() if each is not stall)
    monkeypatch.setattr(sys.modules["perfnb.diagnose"], "detectors", lambda: (bad, *others))

    made = diagnose(stall.examples[0].run)

    assert made.not_measured.set_index("detector")["reason"]["data_stall"].startswith("failed: KeyError")
    assert sum(item.reason.startswith("failed") for item in made.unmeasured) == 1
