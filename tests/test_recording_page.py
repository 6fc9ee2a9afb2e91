"""The page on recording: its blocks run as they stand, one after another, and what it says of them holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perfnb
from perfnb.record.profiler_window import MOST_BYTES, WARM_UP_STEPS
from perfnb.run import Run

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "recording.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^## (.+?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {title: BLOCK.findall(text) for title, text in SECTION.findall(PAGE)}


def _blocks(section: str, language: str = "python") -> str:
    """Code of a section's blocks, one after another."""
    return "\n".join(code for kind, code in SECTIONS[section] if kind == language)


def _ran(*sections: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for section in sections:
        exec(compile(_blocks(section), f"docs/recording.md: {section}", "exec"), names)  # noqa: S102 - the page's own code
    return names


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")


def _has_all_phases(run: Run) -> bool:
    return set(run.phases["phase"]) == {"data", "forward", "backward", "optimizer", "other"}


def test_every_block_is_of_a_kind_that_is_run_here() -> None:
    kinds = {(title, kind) for title, blocks in SECTIONS.items() for kind, _ in blocks}

    assert {kind for _, kind in kinds} == {"python", "ipython", "bash"}
    assert {title for title, kind in kinds if kind == "python"} == {
        "A script",
        "Hugging Face",
        "Lightning",
        "Accelerate",
        "Loops of your own kind",
        "A trace beside it",
        "What it costs",
    }


def test_a_script_and_what_it_cost() -> None:
    run = _ran("A script", "What it costs")["run"]

    assert len(run.steps) == 32
    assert _has_all_phases(run)


def test_a_notebook(tmp_path: Path) -> None:
    cells = [code for kind, code in SECTIONS["A notebook"] if kind == "ipython"]
    before = _blocks("A script").partition("with perfnb")[0]
    program = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        f"for cell in {[before, *cells]!r}:\n"
        "    shell.run_cell(cell).raise_error()\n"
    )

    environment = os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert "step" in done.stdout


def test_the_script_under_torchrun(tmp_path: Path) -> None:
    script = _blocks("A script").partition("run = perfnb.read_run")[0]
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    command = _blocks("Several processes: torchrun", "bash").split()

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, text=True, check=False)
    run = perfnb.read_run("runs/exp1")

    assert done.returncode == 0, done.stderr[-2000:]
    assert run.ranks == (0, 1)
    assert run.world_size == 2


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the trainers' own use of other libraries
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning")
def test_hugging_face() -> None:
    pytest.importorskip("transformers")

    run = _ran("A script", "Hugging Face")["callback"].recorder.run

    assert len(run.steps) == run.config["planned_steps"] == 20
    assert perfnb.read_run("runs/huggingface").config["batch_size"] == 8


@pytest.mark.filterwarnings("ignore:.*does not have many workers which may be a bottleneck:UserWarning")
@pytest.mark.filterwarnings("ignore:.*number of training batches.*is smaller than the logging interval:UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of Lightning's own use of other libraries
def test_lightning() -> None:
    pytest.importorskip("lightning")

    run = _ran("A script", "Lightning")["callback"].recorder.run

    assert len(run.steps) == 32
    assert run.training["loss"].notna().all()
    assert {"gradient_accumulation_steps", "precision", "strategy"} <= set(run.config)


def test_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate")

    _ran("A script", "Accelerate")
    run = perfnb.read_run("runs/accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()

    assert run.training["batch_size"].to_list() == [16.0] * 16
    assert _has_all_phases(run)


def test_loops_of_another_kind() -> None:
    recorder = _ran("A script", "Loops of your own kind")["recorder"]

    assert recorder.run.training["loss"].to_list() == [3.0, 7.0, 11.0]


def test_a_trace() -> None:
    run = _ran("A script", "A trace beside it")["traced"]

    assert run.steps["is_profiled"].sum() == 6
    assert run.host_ops["name"].str.startswith("ProfilerStep").sum() == 3


def test_figures_of_the_page_are_those_of_the_code() -> None:
    from perfnb.record.distributed import LARGEST_SHARE  # noqa: PLC0415 - beside what it is compared with

    assert f"After {WARM_UP_STEPS} steps" in PAGE
    assert f"{MOST_BYTES >> 20} MiB" in PAGE
    assert f"more than {LARGEST_SHARE:.0%}".replace("%", " %") in PAGE
