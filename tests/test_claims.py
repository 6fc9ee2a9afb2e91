"""What detectors take of a step between them: what one claims is gone for the next, what a cleared one claimed goes back."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from perfnb.claims import lost_per_step
from perfnb.detector import Detector, detector, example
from perfnb.findings import Cleared, Finding
from perfnb.ground import Ground
from perfnb.run import Run
from perfnb.severity import measure

STEPS = "rank step start_us duration_us\n" + "\n".join(f"0 {step} {step * 100} 100" for step in range(1, 7))
PHASES = "rank step phase wall_us\n" + "\n".join(f"0 {step} data 20\n0 {step} other 80" for step in range(1, 7))
HOST: dict[str, Any] = {"steps": STEPS, "phases": PHASES, "signals": ("loader",)}


def run(**tables: Any) -> Run:
    return example("", lost_share=0.0, **tables).run


def loses(lost_us: float, *, family: Any = "data", claims: tuple[str, ...] = ("data.wall",)) -> Detector:
    @detector(family=family, title="x", source="none", injected_by="none", examples=(), not_to_confuse_with=(), claims=claims)
    def cause(ledger: pd.DataFrame) -> pd.DataFrame:
        return ledger.drop_duplicates(["rank", "step"]).assign(lost_us=lost_us)

    return cause  # type: ignore[return-value]


def test_what_one_detector_claims_is_no_longer_there_for_the_next() -> None:
    ground = Ground.of(run(**HOST))

    first = measure(loses(15.0), ground)
    second = measure(loses(15.0), ground)

    assert isinstance(first, Finding)
    assert first.lost_us == pytest.approx(15.0)
    assert isinstance(second, Finding)
    assert second.lost_us == pytest.approx(5.0)


def test_a_claim_under_the_floor_goes_back_so_that_the_heading_can_name_the_sum() -> None:
    ground = Ground.of(run(**HOST))

    first, second = measure(loses(4.0), ground), measure(loses(4.0), ground)
    heading = measure(loses(20.0), ground)

    assert isinstance(first, Cleared)
    assert isinstance(second, Cleared)
    assert isinstance(heading, Finding)
    assert heading.lost_us == pytest.approx(20.0)


def test_a_second_view_over_time_tells_only_what_no_detector_explains_and_takes_nothing() -> None:
    phases = PHASES.replace("0 6 data 20\n0 6 other 80", "0 6 data 70\n0 6 other 30")
    ground = Ground.of(run(**HOST | {"phases": phases}))
    measure(loses(70.0), ground)  # takes 20 of each step, 70 of the last

    twice = [measure(loses(60.0, family="over time", claims=()), ground) for _ in range(2)]

    assert all(isinstance(each, Finding) for each in twice)  # 60 of each step but the last, of which 50 are explained
    assert [each.lost_us for each in twice if isinstance(each, Finding)] == pytest.approx([50.0, 50.0])


def test_the_excess_of_the_rank_with_the_most_work_is_claimed_once() -> None:
    steps = "rank step start_us duration_us\n0 1 0 100\n1 1 0 100"
    phases = "rank step phase wall_us\n0 1 forward 60\n0 1 communication 40\n1 1 forward 100"
    ground = Ground.of(run(steps=steps, phases=phases, signals=("collectives",), world_size=2))
    excess = loses(30.0, family="imbalance", claims=("imbalance",))

    first, second = (lost_per_step(excess, excess.evidence(ground.run, ground.ledger, ground.work), ground) for _ in range(2))

    assert first.to_list() == pytest.approx([20.0])  # rank 1 works 100, the mean is 80
    assert second.to_list() == pytest.approx([0.0])


def test_host_time_of_a_device_job_counts_only_while_the_device_idles() -> None:
    tables: dict[str, Any] = {
        "steps": "rank step start_us duration_us\n0 1 0 100",
        "host_ops": "rank process thread category name start_us duration_us\n0 1 1 gc gen2 40 40",
        "device_ops": """rank device stream kind    name start_us duration_us
                         0    0      7      compute gemm 0        50
                         0    0      7      compute gemm 70       30""",
    }
    ground = Ground.of(run(**tables))

    @detector(family="host", title="x", source="none", injected_by="none", examples=(), not_to_confuse_with=())
    def pauses(host_ops: pd.DataFrame) -> pd.DataFrame:
        return host_ops[host_ops["category"].eq("gc")]

    found: Any = pauses
    assert lost_per_step(found, found.evidence(ground.run), ground).to_list() == pytest.approx([20.0])  # 50 to 70 of 40 to 80


def test_devices_of_one_rank_are_averaged_also_where_only_one_has_evidence() -> None:
    device_ops = "rank device stream kind name start_us duration_us\n" + "\n".join(
        f"0 {each} 7 compute gemm 0 50" for each in (0, 1)
    )
    ground = Ground.of(run(steps="rank step start_us duration_us\n0 1 0 100", device_ops=device_ops))

    @detector(family="device compute", title="x", source="none", injected_by="none", examples=(), not_to_confuse_with=())
    def slow(ledger: pd.DataFrame) -> pd.DataFrame:
        one = ledger[ledger["device"].eq(1) & ledger["part"].eq("compute")]
        return one.assign(lost_us=40.0)

    found: Any = slow
    assert lost_per_step(found, found.evidence(ground.run, ground.ledger), ground).to_list() == pytest.approx([20.0])


def test_a_table_with_a_default_is_none_where_it_is_missing() -> None:
    seen = []

    @detector(family="host", title="x", source="none", injected_by="none", examples=(), not_to_confuse_with=())
    def looks(steps: pd.DataFrame, host_samples: pd.DataFrame | None = None) -> pd.DataFrame:
        seen.append(host_samples)
        return steps.iloc[:0]

    found: Any = looks
    found.evidence(run(**HOST))
    found.evidence(run(**HOST, host_samples="rank host time_us\n0 a 0"))

    assert seen[0] is None
    assert len(seen[1]) == 1


def test_events_on_the_device_tell_how_much_of_the_loading_it_hides() -> None:
    phases = """rank step phase   wall_us device_us
                0    1    data    60      25
                0    1    forward 40      70
                0    2    data    60      -
                0    2    forward 40      -"""
    steps = "rank step start_us duration_us\n0 1 0 100\n0 2 100 100"
    ground = Ground.of(run(steps=steps, phases=phases, signals=("loader",), config={"device": "cuda"}))
    stall = loses(60.0)

    lost = lost_per_step(stall, stall.evidence(ground.run, ground.ledger), ground)

    assert lost.to_list() == pytest.approx([30.0, 0.0])  # 70 of 100 us busy; nothing known of step 2
    assert not ground.is_bound_only("data")
    assert ground.is_bound_only("host")


def test_a_loss_is_a_share_of_the_steps_own_time_where_other_processes_hold_the_cores() -> None:
    phases = "rank step phase wall_us cpu_us runqueue_us blocked_us\n" + "\n".join(
        f"0 {step} data 20 10 10 0\n0 {step} forward 80 10 70 0" for step in range(1, 7)
    )
    ground = Ground.of(run(steps=STEPS, phases=phases, signals=("loader", "schedstat")))

    stall = measure(loses(10.0, claims=("data.cpu",)), ground)
    contention = measure(loses(80.0, family="host", claims=("data.runqueue", "forward.runqueue")), ground)

    assert isinstance(stall, Finding)
    assert stall.severity == pytest.approx(0.5)  # 10 of the 20 us that the step runs
    assert "of each step's own time, without waiting for a core" in stall.summary
    assert isinstance(contention, Finding)
    assert contention.severity == pytest.approx(0.8)
