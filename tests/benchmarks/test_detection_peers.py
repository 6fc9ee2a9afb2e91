"""What peers say is read as they say it, mapped in their favour and counted like our own findings."""

import contextlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from perfnb.run import Machine, Run
from perfnb.tables import conform

torch = pytest.importorskip("torch")

from benchmarks.detection.case import Case, Truth  # noqa: E402 - torch decides whether there is anything to test
from benchmarks.detection.peers import saying, table  # noqa: E402
from benchmarks.detection.peers.execution import Outcome, path_of, store, stored  # noqa: E402
from benchmarks.detection.peers.job import InsteadOfRecorder, under  # noqa: E402
from benchmarks.detection.peers.mapping import MEANINGS  # noqa: E402
from benchmarks.detection.peers.sagemaker import fired  # noqa: E402
from benchmarks.detection.peers.selection import chosen  # noqa: E402
from benchmarks.detection.training import DROPPED, Plan, train  # noqa: E402
from benchmarks.detection.workloads import WORKLOADS  # noqa: E402

pytestmark = pytest.mark.torch

SLOW = Case("single", "mlp", "alone", "development", ("slow_item",), 0.4)
CONTROL = Case("controls", "mlp", "alone", "development", control="quiet")
EXPECTS = {"slow_item": ("slow_sample_read",)}
ACCEPTS = {"slow_item": ("data_stall",), "beside_busy": ("cpu_contention",)}
QUIET = {"runqueue_share": 0.0}
TRUTH = Truth("slow_item", "own", 0.4, 10.0, 6.0)


def traceml(*issues: dict[str, Any]) -> dict[str, Any]:
    return {"primary_diagnosis": issues[0], "step_time": {"issues": list(issues)}, "system": {"issues": []}}


def gpuprof(*titles: tuple[str, str]) -> dict[str, Any]:
    return {"ranks": [{"run": {"insights": [{"severity": severity, "title": title} for severity, title in titles]}}]}


INPUT_BOUND = {"kind": "INPUT_BOUND", "severity": "crit", "summary": "Input wait is 38.0% ...", "share_pct": 0.38}
HEALTHY = {"kind": "NORMAL", "severity": "info", "summary": "fine"}


def test_every_rule_that_is_read_has_a_meaning_and_every_meaning_is_read() -> None:
    assert {rule for _, rule in saying._GPUPROF} == set(MEANINGS["gpuprof"])
    assert {rule for _, rule in saying._TENSORBOARD} == set(MEANINGS["torch_tb_profiler"])
    assert set(saying._READERS) == {*MEANINGS, saying.OURS}


def test_every_meaning_says_why() -> None:
    for rules in MEANINGS.values():
        for rule, meaning in rules.items():
            assert meaning.reason, rule


def test_what_traceml_repeats_counts_once_and_information_not_at_all() -> None:
    found = saying.said("traceml", traceml(INPUT_BOUND, HEALTHY))

    assert [(each.rule, each.shares) for each in found] == [("INPUT_BOUND", (0.38,))]


def test_the_size_of_a_straggler_is_its_cost_over_the_step_and_a_busy_cpu_has_none() -> None:
    straggler = {"kind": "COMPUTE_STRAGGLER", "severity": "crit", "evidence": {"visible_cost_ms": 3.0, "step_time_ms": 12.0}}
    busy = {"kind": "HIGH_CPU", "severity": "warn", "share_pct": 97.0}

    primary = {**straggler, "evidence": {}}
    found = saying.said("traceml", {**traceml(straggler, busy), "primary_diagnosis": primary})

    assert [(each.rule, each.shares) for each in found] == [("COMPUTE_STRAGGLER", (0.25,)), ("HIGH_CPU", ())]


def test_gpuprof_is_read_in_its_own_order_and_its_share_also_as_one_of_the_whole_step() -> None:
    raw = gpuprof(
        ("low", "Estimated cost: $0.00 (0 min)"),
        ("medium", "100% of step time waiting on the loader (inter-step gap)"),
        ("high", "25% of step unaccounted (kernel-launch / Python overhead)"),
    )

    found = saying.said("gpuprof", raw)

    assert [each.rule for each in found] == ["dataloader_stall", "kernel_launch_overhead"]
    assert found[0].shares == (1.0, 0.5)  # as long as the rest of the step: half of the whole
    assert found[1].shares == (0.25,)


def test_what_the_tensorboard_plugin_recommends_is_read_without_its_links() -> None:
    text = 'This run has high time cost on input data loading. 31.5% of the step time is in DataLoader. <a href="x">see</a>'

    found = saying.said("torch_tb_profiler", {"ranks": [{"recommendations": [text]}]})

    assert [(each.rule, each.shares) for each in found] == [("input", (0.315,))]


def test_a_rule_that_the_mapping_lacks_is_told_not_dropped() -> None:
    with pytest.raises(ValueError, match="no row for: A new rule"):
        saying.said("gpuprof", gpuprof(("high", "A new rule")))


def test_a_family_hit_is_right_and_its_size_is_the_reading_nearest_to_the_truth() -> None:
    raw = gpuprof(("high", "60% of step time waiting on the loader (dataloader_wait phase)"))

    judged = table.judge(Outcome(SLOW, "gpuprof", "0.7.1", raw=raw), [TRUTH], QUIET, EXPECTS, ACCEPTS)

    assert judged.right == ("dataloader_stall",)
    assert judged.is_first_right
    assert judged.size == pytest.approx(0.375)  # .6 / 1.6, nearer to .4 than .6


def test_another_cause_is_wrong_and_any_finding_in_a_control_too() -> None:
    residual = {"kind": "RESIDUAL_HEAVY", "severity": "warn", "summary": "", "share_pct": 0.2}

    in_fault = table.judge(Outcome(SLOW, "traceml", raw=traceml(residual)), [TRUTH], QUIET, EXPECTS, ACCEPTS)
    in_control = table.judge(Outcome(CONTROL, "traceml", raw=traceml(residual)), [], QUIET, EXPECTS, ACCEPTS)

    assert (in_fault.right, in_fault.wrong) == ((), ("RESIDUAL_HEAVY",))
    assert (in_control.label, in_control.wrong) == ("control", ("RESIDUAL_HEAVY",))


def test_a_pegged_processor_is_no_false_alarm_beside_busy_loops() -> None:
    busy = Case("controls", "mlp", "alone", "development", host="busy", control="beside_busy")

    judged = table.judge(Outcome(busy, "sagemaker", raw={"fired": {"CPUBottleneck": "97 %"}}), [], QUIET, EXPECTS, ACCEPTS)

    assert (judged.beside, judged.wrong) == (("CPUBottleneck",), ())


def test_on_a_machine_that_others_load_a_pegged_processor_is_true_everywhere() -> None:
    judged = table.judge(
        Outcome(CONTROL, "sagemaker", raw={"fired": {"CPUBottleneck": ""}}), [], {"runqueue_share": 0.05}, {}, {}
    )

    assert (judged.beside, judged.wrong) == (("CPUBottleneck",), ())


def test_naming_a_cause_that_takes_nothing_is_wrong() -> None:
    nothing = Truth("slow_item", "own", 0.01, 10.0, 9.9)

    judged = table.judge(Outcome(SLOW, "traceml", raw=traceml(INPUT_BOUND)), [nothing], QUIET, EXPECTS, {})

    assert (judged.label, judged.right, judged.wrong) == ("negative", (), ("INPUT_BOUND",))


def test_a_peer_that_did_not_run_missed_nothing() -> None:
    outcomes = [
        Outcome(SLOW, "traceml", reason="exit status 1"),
        Outcome(SLOW, "traceml", raw=traceml(INPUT_BOUND)),
        Outcome(CONTROL, "traceml", raw=traceml(INPUT_BOUND)),
    ]
    truths = [[TRUTH], [TRUTH], []]

    told = table.score([table.judge(*pair, QUIET, EXPECTS, ACCEPTS) for pair in zip(outcomes, truths, strict=True)])

    assert (told["recall"]["hits"], told["recall"]["of"]) == (1, 1)
    assert (told["precision"]["hits"], told["precision"]["of"]) == (1, 2)
    assert (told["false_alarms"]["hits"], told["false_alarms"]["of"]) == (1, 1)
    assert told["size_error"] == {"median": pytest.approx(0.05), "of": 1}  # .38 for .4
    assert told["did_not_run"] == {"exit status 1": 1}


def test_the_table_has_counts_and_says_where_no_size_is_stated() -> None:
    told = table.score([table.judge(Outcome(CONTROL, "sagemaker", raw={"fired": {}}), [], QUIET, EXPECTS, ACCEPTS)])

    text = table.as_markdown({"sagemaker": told}, {"sagemaker": "1.0"})

    assert text.splitlines()[-1] == "| sagemaker 1.0 | none of 0 | none of 0 | none of 0 | 0 of 1 (0% to 79%) | states none | 0 |"


def test_an_outcome_is_read_as_it_was_stored(tmp_path: Path) -> None:
    outcome = Outcome(SLOW, "traceml", "0.5.0", "", traceml(INPUT_BOUND), 0.002, 9.5)

    store(tmp_path, outcome)

    assert stored(path_of(tmp_path, SLOW, "traceml")) == outcome


def host_run(cpu_share: float, slow_steps: int, workers: int = 0) -> Run:
    durations = [100.0] * (200 - slow_steps) + [1_000.0] * slow_steps
    steps = pd.DataFrame({"rank": 0, "step": range(200), "start_us": range(200), "duration_us": durations})
    samples = pd.DataFrame({"rank": 0, "time_us": range(10), "cpu_share": [cpu_share] * 6 + [0.1] * 4, "workers": workers})
    return Run(steps=conform("steps", steps), host_samples=conform("host_samples", samples), machine=Machine(cpu_capacity=2.0))


@pytest.mark.parametrize(
    ("run", "rules"),
    [
        (host_run(0.91, 0), ["CPUBottleneck"]),
        (host_run(0.90, 0), []),
        (host_run(0.5, 11), ["StepOutlier"]),  # 11 of 200 over mean + 3 deviations
        (host_run(0.5, 10), []),
        (host_run(0.5, 0, workers=5), ["Dataloader"]),
        (host_run(0.5, 0, workers=4), []),
    ],
)
def test_published_thresholds_hold_on_both_sides(run: Run, rules: list[str]) -> None:
    assert list(fired(run)) == rules


def test_of_each_fault_one_dose_and_of_the_controls_sixteen_of_all_workloads_are_chosen() -> None:
    faults = [
        Case("single", workload, setting, "held_out", ("slow_item",), dose)
        for workload in ("a", "b", "c")
        for setting in ("alone", "workers")
        for dose in (0.1, 0.4)
    ]
    controls = [
        Case("controls", workload, "alone", "held_out", control=f"c{number}")
        for workload in ("a", "b", "c")
        for number in range(16)
    ]

    found = chosen([*faults, *controls])

    assert [case.id for case in found[:3]] == [f"{name}-alone-slow_item-40-quiet-0" for name in ("a", "b", "c")]
    assert len({case.control for case in found[3:]}) == 16
    assert {case.workload for case in found[3:]} == {"a", "b", "c"}


class Noted:
    """A peer that notes what it is told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    @contextlib.contextmanager
    def around(self) -> Any:
        self.words.append("enter")
        yield
        self.words.append("leave")

    def meet(self, model: Any) -> None:
        self.words.append(f"meet {isinstance(model, torch.nn.Module)}")

    def begin(self) -> None:
        self.words.append("begin")

    def end(self) -> None:
        self.words.append("end")

    def answer(self) -> Any:
        return None


def test_a_peers_step_holds_all_that_the_loop_does_after_the_batch_is_there() -> None:
    peer = Noted()
    workload = WORKLOADS["mlp"]
    settings = dict(next(iter(workload.settings.values())))
    plan = Plan(lambda: workload.build(settings, 0), settings, after_step=(lambda _: peer.words.append("log"),), accumulate=2)

    train(under(plan, peer), 1, InsteadOfRecorder(peer), 0)

    assert peer.words == ["meet True", "enter", *["begin", "begin", "log", "end"] * (1 + DROPPED), "leave"]
