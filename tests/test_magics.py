"""%load_ext perfnb: costs nothing, shows values by their faces, opens panels on a variable or a path."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import perfnb
from perfnb.panels import BottleneckPanel, WhatIfPanel

NOT_LOADED = ("torch", "altair", "ipywidgets", "pandas", "vl_convert")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[InteractiveShell]:
    """An IPython of its own with the extension loaded."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.HistoryAccessor.enabled = False
    made = InteractiveShell(config=settings)
    made.extension_manager.load_extension("perfnb")
    yield made
    atexit.unregister(made.atexit_operations)


@pytest.fixture
def sample(repository: Path) -> Path:
    return repository / "data" / "samples" / "slow_loader"


def faces(shell: InteractiveShell, value: Any) -> dict[str, str]:
    assert shell.display_formatter is not None
    data, _ = shell.display_formatter.format(value)
    return dict(data)


def test_loading_the_extension_is_silent_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "settings = Config()\n"
        "settings.HistoryManager.enabled = False\n"
        "shell = InteractiveShell(config=settings)\n"
        f"before = {{name for name in {NOT_LOADED} if name in sys.modules}}\n"
        "shell.extension_manager.load_extension('perfnb')\n"
        f"print(sorted({{name for name in {NOT_LOADED} if name in sys.modules}} - before))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize(
    "value", [perfnb.Unknown("no steps", "a longer run"), perfnb.Prediction("step_us", 2e4, 1e4, 9e3, 1.1e4, "prior")]
)
def test_a_value_is_shown_in_three_faces(shell: InteractiveShell, value: Any) -> None:
    shown = faces(shell, value)

    assert set(shown) == {"text/html", "text/markdown", "text/plain"}
    assert "Prediction(" not in shown["text/plain"]
    assert "Unknown(" not in shown["text/plain"]


def test_a_run_a_diagnosis_and_an_outcome_are_shown_by_their_faces(shell: InteractiveShell, sample: Path) -> None:
    run = perfnb.read_trace(sample)
    diagnosis = perfnb.diagnose(run)
    outcome = perfnb.verify(perfnb.predict(run, {"num_workers": 2}, {"num_workers": 0}), run, perfnb.read_trace(sample / "after"))

    assert f"{run.steps['step'].nunique()} steps" in faces(shell, run)["text/html"]
    assert faces(shell, diagnosis)["text/plain"].startswith("perfnb  [!] Waiting for data takes")
    assert faces(shell, diagnosis.found[0])["text/plain"].startswith("perfnb  [!] Waiting for data takes")
    assert "measured" in faces(shell, outcome)["text/markdown"]


def test_values_within_a_list_read_as_plain_text(shell: InteractiveShell) -> None:
    shown = faces(shell, [perfnb.Unknown("no steps", "a longer run")])["text/plain"]

    assert "Unknown: no steps. Needs: a longer run" in shown


def test_explore_opens_a_panel_on_a_variable(shell: InteractiveShell, sample: Path) -> None:
    shell.user_ns["run"] = perfnb.read_trace(sample)

    panel = shell.run_line_magic("perfnb_explore", "run")

    assert isinstance(panel, BottleneckPanel)
    assert panel.finding is not None
    assert panel.finding.detector == "data_stall"


def test_whatif_opens_a_panel_on_a_path_with_the_config_beside_it(shell: InteractiveShell, sample: Path) -> None:
    panel = shell.run_line_magic("perfnb_whatif", f"'{sample}'")

    assert isinstance(panel, WhatIfPanel)
    assert panel.config == json.loads((sample / "config.json").read_text(encoding="utf-8"))


def test_apply_puts_the_new_config_into_the_named_variable(shell: InteractiveShell, sample: Path) -> None:
    config = {"num_workers": 0, "batch_size": 32}
    shell.user_ns.update(run=perfnb.read_trace(sample), cfg=config)
    panel = shell.run_line_magic("perfnb_whatif", "run --config cfg")

    panel.num_workers.value = 2
    panel.apply_button.click()

    assert shell.user_ns["cfg"] == {"num_workers": 2, "batch_size": 32}
    assert config["num_workers"] == 0
    assert "cfg is a new object: run the cells that use it again" in panel.snapshot().plain
    panel.undo_button.click()
    assert shell.user_ns["cfg"] == config


def test_a_config_that_was_edited_since_is_not_overwritten(shell: InteractiveShell, sample: Path) -> None:
    shell.user_ns.update(run=perfnb.read_trace(sample), cfg={"num_workers": 0})
    panel = shell.run_line_magic("perfnb_whatif", "run --config cfg")
    shell.user_ns["cfg"] = {"num_workers": 9}

    panel.num_workers.value = 2
    panel.apply_button.click()

    assert shell.user_ns["cfg"] == {"num_workers": 9}
    assert "num_workers is 9, but the change starts from 0" in panel.snapshot().plain


@pytest.mark.parametrize("magic", ["perfnb_explore", "perfnb_whatif"])
@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("numbers", "numbers holds a list, not a Run: read one with perfnb.read_trace"),
        ("nowhere", "no variable named nowhere holds a Run, and there is no file or folder of that name"),
        ("", "the following arguments are required: NAME_OR_PATH"),
        ("run --config nowhere", "there is no variable nowhere: --config takes the name of a variable"),
        ("run --config numbers", "numbers holds a list: --config takes the name of a variable that holds a mapping"),
        ("run --speed 3", "unrecognized arguments: --speed"),
    ],
)
def test_a_wrong_line_is_a_usage_error_that_says_what_is_wrong(
    shell: InteractiveShell, sample: Path, magic: str, line: str, answer: str
) -> None:
    shell.user_ns.update(run=perfnb.read_trace(sample), numbers=[1, 2])

    with pytest.raises(UsageError, match=answer):
        shell.run_line_magic(magic, line)


def test_a_file_that_is_no_trace_is_a_usage_error(shell: InteractiveShell, sample: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json"):
        shell.run_line_magic("perfnb_explore", str(sample / "config.json"))


def test_each_magic_explains_itself(shell: InteractiveShell) -> None:
    for magic in ("perfnb_explore", "perfnb_whatif"):
        words = shell.find_line_magic(magic).__doc__
        assert "NAME_OR_PATH" in words
        assert "--config" in words


def test_unloading_leaves_nothing_behind(shell: InteractiveShell) -> None:
    shell.extension_manager.unload_extension("perfnb")

    assert shell.find_line_magic("perfnb_explore") is None
    assert set(faces(shell, perfnb.Unknown("a", "b"))) == {"text/plain"}
    assert faces(shell, perfnb.Unknown("a", "b"))["text/plain"].startswith("Unknown(")
