"""PerformanceOptimizer: what scripts have becomes bottlenecks, recommendations and a new config, and is kept in a folder."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfnb import PerformanceOptimizer, read_metrics
from perfnb.errors import LogFormatError, PerfnbError
from perfnb.performance_optimizer import OutputError
from perfnb.performance_optimizer_applied import RecommendationError, applied
from perfnb.performance_optimizer_inputs import run_of
from perfnb.prediction import Change
from perfnb.run import Run

STEPS = 40
ROWS = {"step": list(range(STEPS)), "step_time_ms": [50.0] * STEPS, "data_loading_time_ms": [30.0] * STEPS}
CONFIG = {"num_workers": 0, "betas": (0.9, 0.999)}
MEMORY = [{"step": step, "allocated_gib": 1.0, "reserved_gib": 2.0} for step in range(STEPS)]


def entry(knob: str, before: Any, after: Any, strategy: str = "mine") -> dict[str, Any]:
    return {"strategy": strategy, "config_change": [{"knob": knob, "before": before, "after": after}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made") / "output"


@pytest.fixture(scope="module")
def answer(folder: Path) -> dict[str, Any]:
    return PerformanceOptimizer(folder).analyze_and_optimize(ROWS, [], CONFIG)


@pytest.mark.parametrize(
    "rows",
    [ROWS, pd.DataFrame(ROWS), pd.DataFrame(ROWS).to_dict(orient="records")],
    ids=["dict of lists", "DataFrame", "list of dicts"],
)
def test_bottlenecks_of_rows_are_sorted_by_severity_and_saved(rows: Any, tmp_path: Path) -> None:
    found = PerformanceOptimizer(tmp_path).analyze_training_bottlenecks(rows, MEMORY, None)

    severities = [each["severity"] for each in found]
    assert severities == sorted(severities, reverse=True)
    stall = next(each for each in found if each["bottleneck"] == "data_stall")
    assert stall["severity"] == pytest.approx(0.6)
    assert stall["lost_us"] == pytest.approx(30_000.0)
    assert (stall["unit"], stall["confidence_basis"] != "", stall["evidence_rows"] > 0) == ("time", True, True)
    kept = json.loads((tmp_path / "bottlenecks.json").read_text(encoding="utf-8"))
    assert kept["bottlenecks"][0]["severity"] == severities[0]
    assert isinstance(kept["notes"], list)
    assert all(each["reason"] for each in kept["not_measured"])
    assert kept["not_measured"]


def test_a_recommendation_has_its_interval_and_its_basis(answer: dict[str, Any]) -> None:
    first = answer["optimization_recommendations"][0]

    assert first["priority"] == 1
    assert first["config_change"] == [{"knob": "num_workers", "before": 0, "after": first["config_change"][0]["after"]}]
    gain = first["expected_improvement"]
    assert gain["low"] <= gain["after"] <= gain["high"] < gain["before"]
    assert gain["basis"] in first["expected_improvement_text"]
    assert 0 < first["confidence"] < 1
    assert first["confidence_basis"].startswith("data_stall: ")
    assert '+  "num_workers"' in first["diff"]
    assert answer["not_applicable"][0]["reason"].startswith("the config has no ")


def test_the_report_is_kept_as_a_page_and_as_json(answer: dict[str, Any], folder: Path) -> None:
    kept = json.loads(Path(answer["saved"]["json"]).read_text(encoding="utf-8"))

    assert kept["bottlenecks"][0]["bottleneck"] == answer["bottlenecks"][0]["bottleneck"] == "data_stall"
    assert "data_stall" in (folder / "optimization_report.html").read_text(encoding="utf-8")
    assert not list(folder.glob(".perfnb-*"))


def test_what_was_recommended_is_applied_also_after_a_way_through_json(answer: dict[str, Any], folder: Path) -> None:
    kept = json.loads(Path(answer["saved"]["json"]).read_text(encoding="utf-8"))
    optimizer = PerformanceOptimizer(folder)

    config, done, refused = optimizer.apply_optimization_recommendations(kept, CONFIG)

    after = answer["optimization_recommendations"][0]["config_change"][0]["after"]
    assert config == {"num_workers": after, "betas": (0.9, 0.999)}
    assert CONFIG["num_workers"] == 0
    assert [each["strategy"] for each in done] == [each["strategy"] for each in answer["optimization_recommendations"]]
    assert refused == []
    assert json.loads((folder / "applied.json").read_text(encoding="utf-8"))["applied"] == done


def test_a_loss_that_is_no_number_leads_to_a_parameter_to_try_whose_impact_is_unknown(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 2.0 if step < 3 else math.nan} for step in range(5)]

    report = PerformanceOptimizer(tmp_path).analyze_and_optimize(rows, current_config={"learning_rate": 0.1})

    tried = report["hyperparameter_suggestions"]
    assert [(each["parameter_name"], each["current_value"], each["suggested_value"]) for each in tried] == [
        ("learning_rate", 0.1, 0.01)
    ]
    assert set(tried[0]["expected_impact"]) == {"unknown", "needs"}
    assert report["optimization_recommendations"] == []
    assert report["training_findings"][0]["detector"] == "non_finite_loss"
    _, done, refused = PerformanceOptimizer(tmp_path).apply_optimization_recommendations(tried, {"learning_rate": 0.1})
    assert done == []
    assert "probe it first" in refused[0]["reason"]


def test_without_a_config_the_parameter_is_named_and_has_no_value(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 2.0 if step < 3 else math.nan} for step in range(5)]

    tried = PerformanceOptimizer(tmp_path).analyze_and_optimize(rows)["hyperparameter_suggestions"]

    assert (tried[0]["parameter_name"], tried[0]["suggested_value"]) == ("learning_rate", None)
    assert tried[0]["why_no_value"]


def test_what_does_not_go_together_or_does_not_fit_is_refused_with_the_reason() -> None:
    given = [
        entry("num_workers", 0, 2, "first"),
        entry("num_workers", 0, 4, "second"),
        entry("betas", [0.9, 0.99], [0.9, 0.95], "stale"),
        entry("clip_norm", None, 1.0, "homeless"),
        Change("betas", (0.9, 0.999), (0.9, 0.95)),
        {"strategy": "nothing", "config_change": []},
    ]

    config, done, refused = applied(given, CONFIG)

    assert config == {"num_workers": 2, "betas": (0.9, 0.95)}
    assert [each["strategy"] for each in done] == ["first", "betas: (0.9, 0.999) -> (0.9, 0.95)"]
    reasons = {each["strategy"]: each["reason"] for each in refused}
    assert reasons["second"].startswith("num_workers was changed by first already")
    assert "the change starts from" in reasons["stale"]
    assert "no place for clip_norm" in reasons["homeless"]
    assert reasons["nothing"] == "it changes nothing of a config"
    assert "clip_grad_norm_" in refused[2]["paste"][0]


def test_a_file_is_written_once_and_undone_to_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    file.write_text('{"num_workers": 0,\n "precision": "fp32"}\n', encoding="utf-8")

    home, done, _ = applied([entry("num_workers", 0, 2), entry("precision", "fp32", "bf16", "other")], file)

    assert len(done) == 2
    assert file.read_text(encoding="utf-8") == '{"num_workers": 2,\n "precision": "bf16"}\n'
    assert len(list(tmp_path.glob("*.bak"))) == 1
    assert home["num_workers"] == 2


def test_nothing_to_apply_leaves_a_config_as_it_is() -> None:
    assert applied([], CONFIG) == (CONFIG, [], [])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (3, "recommendations is a int"),
        ("raise_num_workers", "recommendations is a str"),
        ({"optimization_recommendations": None}, "recommendations is a NoneType"),
        ([3], "recommendation 1 is a int"),
        ([{"strategy": "x", "config_change": "num_workers=4"}], r"recommendation 1 \(x\) has no config_change"),
    ],
)
def test_what_is_no_recommendation_is_said_so(given: Any, why: str) -> None:
    with pytest.raises(RecommendationError, match=why):
        applied(given, CONFIG)


def test_paths_are_read_for_what_they_hold(repository: Path) -> None:
    samples = repository / "data" / "samples"

    assert len(run_of(samples / "healthy").steps) == 16
    assert len(run_of(samples / "logs" / "trainer_state.json").training) == 10
    loop = run_of(
        samples / "logs" / "my_loop.jsonl", None, samples / "logs" / "my_host.csv", {"num_workers": 3}, units={"*_time": "s"}
    )
    assert (len(loop.steps), len(loop.host_samples) > 0, loop.config["num_workers"]) == (60, True, 3)


def test_a_run_is_taken_as_it_is_with_the_config_that_is_given() -> None:
    run = Run(config={"num_workers": 1})

    assert run_of(run) is run
    assert run_of(run, config={"num_workers": 2}).config == {"num_workers": 2}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((None,), "training_metrics is None"),
        (("nowhere.csv",), "nowhere.csv, which does not exist"),
        ((Run(signals=frozenset({"device_ops"})), MEMORY), "a trace or a recording holds its own samples"),
        ((read_metrics(ROWS), MEMORY), "memory_snapshots cannot be added to a Run that was read already"),
        (([],), "holds no rows"),
        (("",), "training_metrics is '', which names nothing"),
        (("~nosuchuser/x",), "training_metrics names ~nosuchuser/x, which starts at the home of a user who is not there"),
        (
            ("step,step_time_ms\n" + "1,50\n" * 90,),
            r"training_metrics is a text of 468 characters \('step,step_time_ms .*names no file",
        ),
        (('[{"step": 1}, ' * 30,), "training_metrics is a text of 420 characters"),
        (("x" * 300,), "training_metrics is a text of 300 characters"),
        (("a\0b",), r"training_metrics names a\\x00b, which does not exist"),
        ((ROWS, ""), "memory_snapshots is '', which names nothing: pass rows"),
        ((ROWS, "/"), "memory_snapshots names /, which is a folder"),
        ((ROWS, "nowhere.pickle"), "nowhere.pickle, which does not exist"),
        ((ROWS, None, " "), "system_metrics is ' ', which names nothing"),
        ((ROWS, np.array(3.0)), "memory_snapshots is a ndarray"),
        (
            (ROWS, {"segments": [], "device_traces": [[]]}),
            r"memory\._snapshot\(\) gives, not rows: write it with .*_dump_snapshot",
        ),
        ((ROWS, [{"device": 0, "total_size": 2, "blocks": []}]), r"cuda\.memory_snapshot\(\) gives, not rows"),
    ],
)
def test_what_cannot_be_read_is_said_with_what_to_pass(arguments: tuple[Any, ...], why: str) -> None:
    with pytest.raises(LogFormatError, match=why):
        run_of(*arguments)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(PerfnbError, match="cannot be made a folder"):
        PerformanceOptimizer(tmp_path / "file" / "output")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "output_dir is None: pass the path of a folder"),
        ("", "output_dir is '': pass the path of a folder"),
        ("a\0b", r"output_dir a\\x00b is no path of a folder"),
        ("~nosuch/x", "output_dir ~nosuch/x is no path of a folder: Could not determine home"),
    ],
)
def test_what_is_no_folder_is_said(given: Any, why: str) -> None:
    with pytest.raises(OutputError, match=why):
        PerformanceOptimizer(given)


@pytest.mark.parametrize("units", ["ms", {"*_time": 3}])
def test_units_that_are_no_mapping_of_texts_are_refused_with_what_to_pass(units: Any, tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match=r"units is .*: pass a mapping of columns to their units"):
        PerformanceOptimizer(tmp_path, units=units)


def test_a_folder_that_went_away_is_said_before_the_config_is_changed(tmp_path: Path) -> None:
    optimizer = PerformanceOptimizer(tmp_path / "output")
    optimizer.output_dir.rmdir()
    file = tmp_path / "train.json"
    file.write_text('{"num_workers": 0}', encoding="utf-8")

    with pytest.raises(OutputError, match=r"output_dir .* cannot be written: No such file or directory"):
        optimizer.apply_optimization_recommendations([entry("num_workers", 0, 2)], file)
    with pytest.raises(OutputError, match="cannot be written"):
        optimizer.analyze_training_bottlenecks(ROWS)

    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
    assert file.read_text(encoding="utf-8") == '{"num_workers": 0}'


def test_a_folder_in_the_place_of_a_file_is_said_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "optimization_report.json").mkdir()

    with pytest.raises(OutputError, match=r"optimization_report\.json cannot be written: it is a folder"):
        PerformanceOptimizer(tmp_path).analyze_and_optimize(ROWS)

    assert [path.name for path in tmp_path.iterdir()] == ["optimization_report.json"]


def test_a_config_that_was_changed_before_the_folder_went_away_is_named_with_its_backup(tmp_path: Path) -> None:
    optimizer = PerformanceOptimizer(tmp_path / "output")
    file = tmp_path / "train.json"
    file.write_text('{"num_workers": 0}', encoding="utf-8")

    def entries() -> Iterator[dict[str, Any]]:
        optimizer.output_dir.rmdir()  # after the folder was looked at
        yield entry("num_workers", 0, 2)

    with pytest.raises(OutputError, match="that file is as it was; but the config was changed already") as caught:
        optimizer.apply_optimization_recommendations(entries(), file)

    assert file.read_text(encoding="utf-8") == '{"num_workers": 2}'
    backup = Path(str(caught.value).rpartition(" lies in ")[2])
    assert backup.read_text(encoding="utf-8") == '{"num_workers": 0}'


def test_rows_of_memory_go_with_a_log_as_its_own_reader_reads_it(tmp_path: Path) -> None:
    state = {
        "global_step": 20,
        "log_history": [{"step": 10, "loss": 2.0, "learning_rate": 0.1}, {"step": 20, "loss": 1.0, "learning_rate": 0.1}],
    }
    (tmp_path / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    memory = [{"step": step, "allocated_gib": 1.0, "reserved_gib": 2.0} for step in (10, 20)]

    run = run_of(tmp_path, memory, config={"num_workers": 3})

    assert run.training["step"].to_list() == [10, 20]
    assert len(run.gpu_samples) + len(run.allocator) > 0
    assert "Hugging Face log has no time of each step" in run.missing["steps"]
    assert run.config == {"num_workers": 3}


def test_rows_of_memory_do_not_go_with_the_path_of_a_trace(repository: Path) -> None:
    with pytest.raises(
        LogFormatError, match=r"memory_snapshots may be rows only beside .* a log: a trace .* holds its own samples"
    ):
        run_of(repository / "data" / "samples" / "healthy", MEMORY)


def test_every_path_may_start_at_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pd.DataFrame(ROWS).to_csv(tmp_path / "rows.csv", index=False)
    pd.DataFrame(MEMORY).to_csv(tmp_path / "memory.csv", index=False)
    (tmp_path / "train.json").write_text('{"num_workers": 0}', encoding="utf-8")
    optimizer = PerformanceOptimizer("~/output")

    report = optimizer.analyze_and_optimize("~/rows.csv", "~/memory.csv", "~/train.json")
    done = optimizer.apply_optimization_recommendations(report["optimization_recommendations"][:1], "~/train.json")

    assert (tmp_path / "output" / "applied.json").is_file()
    assert done.refused == []
    assert json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))["num_workers"] > 0


def test_numbers_of_numpy_in_a_config_are_numbers(tmp_path: Path) -> None:
    config = {"num_workers": np.int64(0), "learning_rate": np.float32(0.5), "betas": (np.float64(0.9), 0.999)}
    optimizer = PerformanceOptimizer(tmp_path)

    report = optimizer.analyze_and_optimize(ROWS, current_config=config)
    done = optimizer.apply_optimization_recommendations(json.loads(json.dumps(report)), config)

    first = report["optimization_recommendations"][0]
    assert first["strategy"] == "raise_num_workers"
    assert '-  "num_workers": 0,' in first["diff"]
    assert done.config == {**config, "num_workers": first["config_change"][0]["after"]}
    assert not [each for each in done.refused if "edited since" in each["reason"]]


def test_an_ambiguous_knob_and_one_that_is_named_twice_are_refused_alone() -> None:
    config = {"train": {"batch_size": 8}, "eval": {"batch_size": 8}, "num_workers": 0, "prefetch_factor": 2}
    twice = entry("prefetch_factor", 2, 4, "twice")
    twice["config_change"] *= 2

    done = applied([entry("batch_size", 8, 16, "two places"), twice, entry("num_workers", 0, 2)], config)

    assert done.config == {**config, "num_workers": 2}
    reasons = {each["strategy"]: each["reason"] for each in done.refused}
    assert reasons == {
        "two places": "the config has batch_size at train.batch_size and eval.batch_size: pass the one that counts",
        "twice": "it names prefetch_factor 2 times: leave the change that counts, and apply it again",
    }


# altair imports anywidget, and that Jupyter's libraries, wherever they are installed: here they are not
SCRIPT = """
import sys

absent = ("IPython", "ipywidgets", "anywidget")
sys.modules.update(dict.fromkeys(absent))  # None: as if not installed, for import and find_spec alike
import perfnb
from perfnb.report_file import html_page

optimizer = perfnb.PerformanceOptimizer(sys.argv[1])
rows = {"step": [*range(40)], "step_time_ms": [50.0] * 40, "data_loading_time_ms": [30.0] * 40}
report = optimizer.analyze_and_optimize(rows, current_config={"num_workers": 0})
done = optimizer.apply_optimization_recommendations(report, {"num_workers": 0})
import perfnb.validate, perfnb.commands.known
perfnb.commands.known.commands()
assert done.config["num_workers"] > 0
assert not [name for name in (*absent, "torch") if sys.modules.get(name) is not None]
"""


def test_a_plain_script_needs_no_jupyter(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
