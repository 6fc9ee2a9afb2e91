"""%load_ext perfnb: costs nothing, shows values by their faces, watches cells without changing them, opens panels."""

from __future__ import annotations

import atexit
import compileall
import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from traitlets.config import Config

import perfnb
from perfnb.findings import Diagnosis
from perfnb.magics.cell_text import begin_line
from perfnb.panels import BottleneckPanel, MonitorPanel, WhatIfPanel

NOT_LOADED = ("torch", "altair", "ipywidgets", "pandas", "vl_convert")
LARGEST_LOAD_CPU_MS = 50
NOTHING_TRAINED = "perfnb  [?] No optimizer step ended here."

PLAIN_LOOP = """\
import time
import torch

class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 13
    def __getitem__(self, index):
        time.sleep(0.085)
        return torch.ones(4)

def train(epochs=1):
    net = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(epochs):
        for batch in torch.utils.data.DataLoader(Slow()):
            optimizer.zero_grad()
            net(batch).sum().backward()
            optimizer.step()
    return epochs
"""

Run = Callable[[str], tuple[ExecutionResult, str]]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[InteractiveShell]:
    """An IPython of its own with the extension loaded."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.HistoryAccessor.enabled = False
    settings.InteractiveShell.colors = "nocolor"
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(config=settings)
    made.extension_manager.load_extension("perfnb")
    yield made
    made.extension_manager.unload_extension("perfnb")
    atexit.unregister(made.atexit_operations)
    InteractiveShell.clear_instance()


@pytest.fixture
def run(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a cell; its result, and all that it printed and showed, in the order in which people see it."""

    def run(cell: str) -> tuple[ExecutionResult, str]:
        capsys.readouterr()
        result = shell.run_cell(cell, store_history=True)
        printed = capsys.readouterr()
        return result, printed.out + printed.err

    return run


@pytest.fixture
def sample(repository: Path) -> Path:
    return repository / "data" / "samples" / "slow_loader"


def faces(shell: InteractiveShell, value: Any) -> dict[str, str]:
    assert shell.display_formatter is not None
    data, _ = shell.display_formatter.format(value)
    return dict(data)


def trees(shell: InteractiveShell) -> dict[str, Any]:
    """Everything of an IPython and of this process that an extension could leave something in."""
    magics = shell.magics_manager
    formatter: Any = shell.display_formatter
    return {
        "transforms": list(shell.input_transformer_manager.cleanup_transforms),
        "line transforms": list(shell.input_transformer_manager.line_transforms),
        "syntax": list(shell.ast_transformers),
        "completions": sorted(each for each in shell.strdispatchers["complete_command"].strs if "perfnb" in each),
        "events": {name: list(callbacks) for name, callbacks in shell.events.callbacks.items()},
        "magics": {kind: set(names) for kind, names in magics.magics.items()},
        "registry": set(magics.registry),
        "shown types": {kind: set(each.deferred_printers) for kind, each in formatter.formatters.items()},
        "shown bundles": set(formatter.mimebundle_formatter.deferred_printers),
        "threads": {thread.name for thread in threading.enumerate() if thread.name.startswith("perfnb")},
        "variables": {name for name in shell.user_ns if not name.startswith("_")},
    }


@pytest.mark.alone
def test_loading_the_extension_is_silent_loads_nothing_heavy_and_takes_a_twentieth_of_a_second() -> None:
    code = (
        "import sys, time\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "settings = Config()\n"
        "settings.HistoryManager.enabled = False\n"
        "shell = InteractiveShell(config=settings)\n"
        f"before = {{name for name in {NOT_LOADED} if name in sys.modules}}\n"
        "start = time.process_time()\n"
        "shell.extension_manager.load_extension('perfnb')\n"
        "spent = 1000 * (time.process_time() - start)\n"
        f"print(sorted({{name for name in {NOT_LOADED} if name in sys.modules}} - before))\n"
        "print(spent)"
    )

    compileall.compile_dir(Path(perfnb.__file__).parent, quiet=1)  # as an installer does, whatever PYTHONDONTWRITEBYTECODE says
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False) for _ in range(3)]

    assert [(done.returncode, done.stdout.splitlines()[0], done.stderr) for done in runs] == 3 * [(0, "[]", "")]
    assert min(float(done.stdout.splitlines()[1]) for done in runs) <= LARGEST_LOAD_CPU_MS


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
        ("", "no cell was watched yet: name a variable that holds a Run, or the path of a trace"),
        ("run --config nowhere", "there is no variable nowhere: --config takes the name of a variable"),
        ("run --config numbers", "numbers holds a list: --config takes the name of a variable that holds a config"),
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
    for magic in ("perfnb_explore", "perfnb_whatif", "perfnb_training", "perfnb_apply", "perfnb_report"):
        words = shell.find_line_magic(magic).__doc__
        assert "NAME_OR_PATH" in words
        assert "--config" in words
    for magic, option in (("perfnb_undo", "--config"), ("perfnb_compare", "--configs"), ("perfnb_watch", "--folder")):
        assert option in shell.find_line_magic(magic).__doc__


CONFIG = {"num_workers": 0, "prefetch_factor": None, "persistent_workers": False}


@pytest.fixture
def told(shell: InteractiveShell, sample: Path) -> Callable[[str, str], str]:
    """Runs a line magic beside a recorded run and its config; what it shows as text."""
    shell.user_ns.update(run=perfnb.read_trace(sample), cfg=dict(CONFIG))
    return lambda magic, line: str(shell.run_line_magic(magic, line))


Told = Callable[[str, str], str]


def test_apply_shows_the_diff_and_undo_takes_it_back(shell: InteractiveShell, told: Told) -> None:
    dry = told("perfnb_apply", "raise_num_workers --run run --config cfg --dry-run")
    assert shell.user_ns["cfg"] == CONFIG
    done = told("perfnb_apply", "raise_num_workers --run run --config cfg")
    assert shell.user_ns["cfg"] == {**CONFIG, "num_workers": 2}
    back = told("perfnb_undo", "")

    assert "Nothing was changed: a dry run" in dry
    assert '+  "num_workers": 2' in dry
    assert "raise_num_workers applied. cfg is a new object: run the cells that use it again" in done
    assert "Taken back: num_workers 0 -> 2" in back
    assert shell.user_ns["cfg"] == CONFIG
    with pytest.raises(UsageError, match="nothing to take back"):
        told("perfnb_undo", "")
    with pytest.raises(UsageError, match="nothing of cfg to take back"):
        told("perfnb_undo", "--config cfg")


def test_a_config_file_is_written_and_put_back_to_the_byte(told: Told, tmp_path: Path) -> None:
    file = tmp_path / "my train.yaml"
    file.write_text("num_workers: 0  # mine\n", encoding="utf-8")

    done = told("perfnb_apply", f"raise_num_workers --run run --config '{file}'")
    written = file.read_text(encoding="utf-8")
    told("perfnb_undo", "")

    assert "my train.yaml is written: start the training again" in done
    assert written == "num_workers: 2  # mine\n"
    assert file.read_bytes() == b"num_workers: 0  # mine\n"


def test_without_a_named_config_apply_only_shows(shell: InteractiveShell, told: Told) -> None:
    shell.user_ns["run"] = dataclasses.replace(shell.user_ns["run"], config=CONFIG)

    assert "Nothing was changed: name what holds the config with --config" in told("perfnb_apply", "raise_num_workers --run run")


@pytest.mark.parametrize(
    ("magic", "line", "answer"),
    [
        ("perfnb_apply", "use_bf16 --run run --config cfg", "use_bf16 is not suggested here; suggested are raise_num_workers"),
        ("perfnb_apply", "raise_num_workers raise_num_workers --run run --config cfg", "two of these change num_workers"),
        ("perfnb_apply", "--run run", "the following arguments are required: ID"),
        ("perfnb_apply", "raise_num_workers", "no cell was watched yet"),
        ("perfnb_report", "report.xyz --run run", "does not say what to write"),
        ("perfnb_compare", "run", "the following arguments are required: AFTER"),
        ("perfnb_compare", "run run --prediction cfg", "cfg holds a dict: --prediction takes the name of a variable"),
        ("perfnb_training", "run --probe cfg", "cfg holds a dict: --probe takes the name of a variable that holds a function"),
        ("perfnb_training", "run --probe nothing", "there is no variable nothing"),
        ("perfnb_watch", "--folder nowhere --interval 0.1", "--interval takes 0.2 seconds or more"),
    ],
)
def test_a_wrong_line_of_an_acting_magic_is_a_usage_error(told: Told, magic: str, line: str, answer: str) -> None:
    with pytest.raises(UsageError, match=answer):
        told(magic, line)


def test_a_config_edited_since_is_a_usage_error_that_names_both_values(shell: InteractiveShell, told: Told) -> None:
    told("perfnb_apply", "raise_num_workers --run run --config cfg")
    shell.user_ns["cfg"] = {**CONFIG, "num_workers": 9}

    with pytest.raises(UsageError, match="num_workers is 9, but the change starts from 2"):
        told("perfnb_undo", "")


def test_a_report_is_written(told: Told, tmp_path: Path) -> None:
    said = told("perfnb_report", f"{tmp_path / 'report.md'} --run run --config cfg")

    assert "report.md, " in said
    assert "data_stall" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_two_runs_are_compared_with_the_configs_beside_them(told: Told, sample: Path) -> None:
    assert "[ok] predicted" in told("perfnb_compare", f"'{sample}' '{sample / 'after'}'")


def test_the_training_panel_opens_on_a_log(told: Told, repository: Path) -> None:
    logs = repository / "data" / "samples" / "logs"

    assert "training loss" in told("perfnb_training", f"'{logs / 'trainer_state.json'}'")
    with pytest.raises(UsageError):
        told("perfnb_training", f"'{logs / 'README.md'}'")


def test_watch_alone_opens_the_live_panel(shell: InteractiveShell, told: Told, tmp_path: Path) -> None:
    panel = shell.run_line_magic("perfnb_watch", "")
    panel.stop()

    assert isinstance(panel, MonitorPanel)
    assert "holds no recording" in told("perfnb_watch", f"--folder '{tmp_path}'")
    assert threads() == []


@pytest.mark.parametrize(
    ("line", "there", "not_there"),
    [
        ("%perfnb_apply ", {"raise_num_workers", "--dry-run"}, "run"),
        ("%perfnb_apply raise_num_workers --config ", {"cfg"}, "run"),
        ("%perfnb_explore ", {"run", "--config"}, "cfg"),
        ("%perfnb_compare run run --configs cfg ", {"cfg"}, "run"),
        ("%perfnb_watch ", {"on", "off", "status", "--folder"}, "cfg"),
        ("%perfnb_report ", {"perfnb_report.html"}, "cfg"),
        ("%perfnb_training run --probe ", {"probing"}, "cfg"),
        ("%perfnb_compare run run --prediction ", {"guess"}, "cfg"),
        ("%%perfnb --config ", {"cfg"}, "run"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Completer.complete:PendingDeprecationWarning")
def test_the_words_that_may_follow_are_offered(
    shell: InteractiveShell, told: Told, line: str, there: set[str], not_there: str
) -> None:
    shell.user_ns.update(probing=len, guess=perfnb.Unknown("a", "b"))

    _, offered = shell.complete("", line, len(line))

    assert there <= set(offered)
    assert not_there not in offered


def test_unloading_leaves_nothing_behind(shell: InteractiveShell) -> None:
    shell.extension_manager.unload_extension("perfnb")
    before = trees(shell)

    shell.extension_manager.load_extension("perfnb")
    shell.run_cell("%perfnb_watch on\n%perfnb 1 + 1")
    loaded = trees(shell)
    shell.extension_manager.unload_extension("perfnb")

    assert loaded["transforms"] == [begin_line, *before["transforms"]]
    assert loaded["threads"]
    assert trees(shell) == before
    assert shell.find_line_magic("perfnb_explore") is None
    assert faces(shell, perfnb.Unknown("a", "b"))["text/plain"].startswith("Unknown(")


def test_loading_twice_and_reloading_double_nothing(shell: InteractiveShell, run: Run) -> None:
    shell.run_cell("%load_ext perfnb")
    once = trees(shell)

    perfnb.load_ipython_extension(shell)
    shell.run_cell("%reload_ext perfnb")
    shell.run_cell("%load_ext perfnb")
    now = trees(shell)
    _, shown = run("%%perfnb\n1 + 1")

    assert {name: len(callbacks) for name, callbacks in now["events"].items()} == {
        name: len(callbacks) for name, callbacks in once["events"].items()
    }
    assert {name: value for name, value in now.items() if name != "events"} == {
        name: value for name, value in once.items() if name != "events"
    }
    assert shown.count(NOTHING_TRAINED) == 1


def test_unloading_inside_a_watched_cell_ends_the_watch_without_a_word(run: Run) -> None:
    _, shown = run("%%perfnb\n%unload_ext perfnb\n%load_ext perfnb\n1 + 1")

    assert "perfnb  [" not in shown
    assert threads() == []


def threads() -> list[str]:
    """Threads of perfnb that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("perfnb")]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("6 * 7", 42),
        ("x = 6\nx * 7", 42),
        ("text = '''%%time\n  two'''\ntext", "%%time\n  two"),
        ("%time 6 * 7", 42),
        ("x = %time 6 * 7\nx", 42),
        ("if True:\n    6 * 7", None),
        ("", None),
    ],
)
def test_a_watched_cell_has_the_value_that_it_has_alone(run: Run, body: str, value: Any) -> None:
    result, shown = run(f"%%perfnb\n{body}")

    assert result.success
    assert result.result == value
    assert shown.rstrip().splitlines()[-1].startswith("watched 0 steps in ")


def test_a_semicolon_still_hides_the_value(run: Run) -> None:
    _, with_value = run("%%perfnb\n6 * 7")
    _, without = run("%%perfnb\n6 * 7;")

    assert "Out[1]: 42" in with_value
    assert "42" not in without


def test_shell_commands_and_scripts_run_as_ever(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("seen = __name__\nprint('from the script')\n")

    _, shown = run(f"%%perfnb\nwords = !echo from the command\nprint(words)\n%run {script}\nprint(seen)")

    assert "['from the command']\nfrom the script\n__main__\nperfnb  [?]" in shown


@pytest.mark.parametrize("top", ["%%perfnb", "\n\n%%perfnb", "%%perfnb\n%%perfnb -q", "%%perfnb  --trace 0  "])
def test_line_numbers_in_a_traceback_stay_those_of_the_cell(run: Run, top: str) -> None:
    leading = len(top) - len(top.lstrip("\n"))  # IPython itself drops blank lines at the top
    line = len(top.splitlines()) - leading + 2

    _, shown = run(f"{top}\n\n1 / 0")

    assert f"line {line}\n" in shown
    assert f"----> {line} 1 / 0" in shown


@pytest.mark.filterwarnings("ignore:To exit")  # IPython's answer to SystemExit
@pytest.mark.parametrize("error", ["ZeroDivisionError", "SystemExit", "KeyboardInterrupt", "BaseException"])
def test_a_failing_cell_shows_its_traceback_then_the_card_and_stays_failed(run: Run, error: str) -> None:
    alone, shown_alone = run(f"raise {error}('mine')")

    watched, shown = run(f"%%perfnb\nraise {error}('mine')")
    after, shown_after = run("6 * 7")

    assert type(watched.error_in_exec) is type(alone.error_in_exec)
    assert not watched.success
    assert shown.count("Traceback (most recent call last)") == shown_alone.count("Traceback (most recent call last)")
    card = shown.index("perfnb  [x] Cell failed after ")
    assert shown.index("mine") < card
    assert f"({error}). No optimizer step ended before it" in shown[card:]
    assert after.result == 42
    assert "perfnb" not in shown_after


def test_a_syntax_error_is_told_by_ipython_alone(run: Run) -> None:
    result, shown = run("%%perfnb\nfor\n")

    assert isinstance(result.error_before_exec, SyntaxError)
    assert "perfnb  [" not in shown


def _in_thread(run: Run, cell: str) -> Any:
    """What a cell gives in a thread of its own: browser tests leave an event loop at work in the main one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run, cell).result()


def test_a_cell_that_awaits_works(run: Run) -> None:
    result, shown = _in_thread(run, "%%perfnb\nimport asyncio\nawait asyncio.sleep(0.01, 'slept')")

    assert result.result == "slept"
    assert shown.count(NOTHING_TRAINED) == 1


def test_a_cancelled_await_fails_and_gets_its_card(run: Run) -> None:
    result, shown = _in_thread(run, "%%perfnb\nimport asyncio\nasyncio.current_task().cancel()\nawait asyncio.sleep(1)")
    _, shown_after = run("6 * 7")

    assert not result.success
    assert shown.count("perfnb  [x] Cell failed after ") == 1
    assert "(CancelledError). No optimizer step" in shown
    assert "perfnb" not in shown_after


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        ("%%perfnb\n%%time\nx = 42\nx", "Wall time"),
        ("%%time\n%%perfnb\nx = 42\nx", "Wall time"),
        ("%%perfnb\n\n%%time\nx = 42\nx", "Wall time"),
        ("%%perfnb\n%%timeit -n 2 -r 2\nx = 42", "loop"),
        ("%%timeit -n 2 -r 2\n%%perfnb\nx = 42", "loop"),
        ("%%perfnb\n%%prun\nx = 42", "function calls"),
        ("%%perfnb\n%%html\n<b>42</b>", "IPython.core.display.HTML"),
        ("%%perfnb\n%%capture out\nprint('hidden')", "perfnb"),
    ],
)
def test_other_magics_stand_above_or_below_and_one_card_follows(run: Run, cell: str, part: str) -> None:
    result, shown = run(cell)

    assert result.success
    assert part in shown
    assert shown.count(NOTHING_TRAINED) == 1
    assert "hidden" not in shown


def test_what_writefile_writes_is_the_rest_of_the_cell(run: Run, tmp_path: Path) -> None:
    _, shown = run(f"%%perfnb\n%%writefile {tmp_path}/made.py\n%%perfnb\nx = 42\n")

    assert (tmp_path / "made.py").read_text() == "%%perfnb\nx = 42\n"
    assert NOTHING_TRAINED in shown


@pytest.mark.parametrize("magic", ["%%bash", "%%sh", "%%script sh"])
def test_a_cell_of_another_process_is_said_to_be_unseen(run: Run, magic: str) -> None:
    _, shown = run(f"%%perfnb\n{magic}\necho from the other")

    assert "from the other" in shown
    assert f"perfnb  [?] {magic.split(maxsplit=1)[0]} runs another process: not seen" in shown


def test_under_capture_the_card_is_captured_with_the_rest(run: Run, shell: InteractiveShell) -> None:
    _, shown = run("%%capture out\n%%perfnb\nprint('hidden')")

    captured = shell.user_ns["out"]
    assert "perfnb" not in shown
    assert captured.stdout == "hidden\n"
    assert [output.data["text/plain"][: len(NOTHING_TRAINED)] for output in captured.outputs] == [NOTHING_TRAINED]


def test_over_capture_an_error_inside_is_called_failed_though_ipython_calls_it_a_success(run: Run) -> None:
    result, shown = run("%%perfnb\n%%capture out\n1 / 0")

    assert result.success
    assert "perfnb  [x] Cell failed after " in shown
    assert "(ZeroDivisionError)" in shown


@pytest.mark.parametrize("cell", ["# mine\n%%perfnb\n1", "%%perfnb\n# mine\n%%time\n1"])
def test_below_a_comment_a_cell_magic_is_ipythons_own_not_found(run: Run, cell: str) -> None:
    result, shown = run(cell)

    assert not result.success
    assert "not found" in shown


def test_time_with_await_is_ipythons_own_syntax_error(run: Run) -> None:
    _, shown = run("%%perfnb\n%%time\nimport asyncio\nawait asyncio.sleep(0)")

    assert "SyntaxError: 'await' outside function" in shown


def test_several_lines_are_one_with_a_word_about_it(run: Run) -> None:
    result, shown = run("%%perfnb\n%%perfnb\n\n%%perfnb\n6 * 7")

    assert result.result == 42
    assert shown.count("perfnb: one %%perfnb is enough, the others are ignored") == 1
    assert shown.count(NOTHING_TRAINED) == 1


def test_a_watch_inside_a_watch_is_ignored_with_a_line(run: Run) -> None:
    _, shown = run("%%perfnb\n_ = get_ipython().run_cell('%%perfnb\\n1 + 1')\n%perfnb 2 + 2\n%perfnb 6 * 7")

    assert ": 42\n" in shown
    assert shown.count("perfnb already watches: this one is ignored") == 3
    assert shown.count(NOTHING_TRAINED) == 1


def test_a_watch_in_another_thread_is_ignored_with_a_line(run: Run) -> None:
    result, shown = run(
        "%%perfnb\nimport threading\nshell = get_ipython()\nvalues = []\n"
        "other = threading.Thread(target=lambda: shell.run_line_magic('perfnb', 'values.append(42)'))\n"
        "other.start(); other.join()\nvalues"
    )

    assert result.result == [42]
    assert shown.count("perfnb already watches: this one is ignored") == 1
    assert shown.count(NOTHING_TRAINED) == 1


def test_called_by_name_the_cell_magic_runs_the_cell(run: Run, shell: InteractiveShell) -> None:
    _, shown = run("get_ipython().run_cell_magic('perfnb', '-o found', 'y = 42')")

    assert shell.user_ns["y"] == 42
    assert isinstance(shell.user_ns["found"], Diagnosis)
    assert shown.count(NOTHING_TRAINED) == 1


def test_a_silent_cell_is_left_alone(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("%%perfnb\nz = 42", silent=True)

    assert result.success
    assert shell.user_ns["z"] == 42
    assert capsys.readouterr().out == ""
    assert threads() == []


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ("--speed 3", "unrecognized arguments: --speed"),
        ("-o 3", "-o takes the name of a variable, not '3'"),
        ("-o class", "-o takes the name of a variable, not 'class'"),
        ("--config nowhere", "there is no variable nowhere: --config takes the name of a variable"),
        ("--config a.b", "--config takes the name of a variable, not 'a.b'"),
        ("--config number", "number holds a int: --config takes the name of a variable that holds a config"),
        ("--trace many", "invalid int value: 'many'"),
        ("--trace=-1", "--trace takes a number of steps, not -1"),
        ("train()", "%%perfnb takes options only: 'train()' goes on the lines below it, or behind %perfnb"),
    ],
)
def test_a_wrong_option_is_a_usage_error_and_the_cell_does_not_run(
    run: Run, shell: InteractiveShell, options: str, answer: str
) -> None:
    shell.user_ns.update(number=3, ran=False)

    result, shown = run(f"%%perfnb {options}\nran = True")

    assert not result.success
    assert "UsageError: " in shown
    assert answer in shown
    assert "Traceback" not in shown
    assert shell.user_ns["ran"] is False


def test_quiet_shows_nothing_and_still_binds_the_diagnosis(run: Run, shell: InteractiveShell) -> None:
    _, shown = run("%%perfnb -q -o found\nprint('mine')")

    assert shown == "mine\n"
    assert isinstance(shell.user_ns["found"], Diagnosis)


def test_a_statement_is_watched_like_a_cell(run: Run, shell: InteractiveShell) -> None:
    result, shown = run("numbers = %perfnb -o found {n: n * n for n in range(3)}\nnumbers")
    _, assigned = run("%perfnb answer = '-q' + str(-1)")
    silenced, without = run("%perfnb 6 * 7;")

    assert result.result == {0: 0, 1: 1, 2: 4}
    assert isinstance(shell.user_ns["found"], Diagnosis)
    assert shown.count(NOTHING_TRAINED) == assigned.count(NOTHING_TRAINED) == without.count(NOTHING_TRAINED) == 1
    assert shell.user_ns["answer"] == "-q-1"
    assert silenced.result is None


def test_a_statement_sees_the_variables_of_the_function_that_it_stands_in(run: Run) -> None:
    result, _ = run("def double(inner):\n    return get_ipython().run_line_magic('perfnb', 'inner * 2')\ndouble(21)")

    assert result.result == 42


def test_a_failing_statement_shows_its_traceback_then_the_card(run: Run) -> None:
    result, shown = run("%perfnb -q 1\n%perfnb 1 / 0")
    _after, shown_after = run("6 * 7")

    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert shown.index("ZeroDivisionError: division by zero") < shown.index("perfnb  [x] Cell failed after ")
    assert shown.count("perfnb  [") == 1
    assert "perfnb" not in shown_after


def test_without_a_statement_the_last_card_comes_again(run: Run) -> None:
    nothing, said = run("%perfnb")
    run("%%perfnb\n1 / 0")
    again, shown = run("%perfnb")

    assert not nothing.success
    assert "no cell was watched yet: put %%perfnb over one, or a statement behind %perfnb" in said
    assert "perfnb  [x] Cell failed after " in again.result.plain
    assert again.result.plain.splitlines()[0] in shown


def test_a_hidden_failure_of_perfnb_is_one_line_and_the_cell_is_unaffected(
    run: Run, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.user_ns["cfg"] = {"num_workers": 0}

    result, shown = run("%%perfnb --config cfg\ndel cfg\n6 * 7")
    monkeypatch.setenv("PERFNB_DEBUG", "1")
    shell.user_ns["cfg"] = {"num_workers": 0}
    _, debugged = run("%%perfnb --config cfg\ndel cfg\n6 * 7")

    line = "perfnb could not diagnose this run: UsageError there is no variable cfg"
    assert result.result == 42
    assert line in shown
    assert "Your cell is unaffected. PERFNB_DEBUG=1 shows the traceback" in shown
    assert "UsageError: " not in shown
    assert "UsageError: " in debugged


def test_a_watch_that_cannot_begin_does_not_keep_the_cell_from_running(run: Run, shell: InteractiveShell) -> None:
    class Torn(Mapping[str, Any]):
        """A config that cannot be read."""

        def __getitem__(self, name: str) -> Any:
            raise KeyError(name)

        def __iter__(self) -> Iterator[str]:
            return iter(["x"])

        def __len__(self) -> int:
            return 1

    shell.user_ns["cfg"] = Torn()

    result, shown = run("%%perfnb --config cfg\n6 * 7")

    assert result.result == 42
    assert "perfnb could not watch this cell: KeyError 'x'. Your cell is unaffected." in shown
    assert threads() == []


def test_saving_writes_a_run_folder_and_a_taken_one_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "first run"

    first, _ = run(f"%%perfnb -q --save '{folder}'\n6 * 7")
    second, shown = run(f"%%perfnb -q --save '{folder}'\nran = True\n6 * 7")

    assert first.success
    assert perfnb.read_run(folder).recordings[0].state == "finished"
    assert not second.success
    assert "UsageError: " in shown


def test_a_record_inside_a_watched_cell_is_what_the_card_rests_on(run: Run) -> None:
    _, shown = run(
        "%%perfnb\nimport time\nimport perfnb\n"
        "with perfnb.record(hooks=False) as recorder:\n"
        "    for _ in recorder.steps(range(12)):\n        time.sleep(0.09)\n"
    )

    assert "watched 12 steps in " in shown


def test_while_the_user_records_a_cell_runs_unwatched_and_says_so(run: Run) -> None:
    recorder = perfnb.record(hooks=False).start()

    result, shown = run("%%perfnb\n6 * 7")
    recorder.stop()

    assert result.result == 42
    assert "perfnb does not watch this cell: another recording is under way in this process" in shown
    assert "perfnb  [" not in shown


def test_a_process_started_in_the_cell_is_counted_as_unseen(run: Run) -> None:
    _, shown = run(
        "%%perfnb\nimport subprocess, sys\n_ = subprocess.run([sys.executable, '-c', 'import time; time.sleep(1)'], check=True)"
    )

    assert "1 child process not watched: record in the script, read the run folder" in shown


def test_the_machine_is_sampled_for_all_later_cells_by_one_sampler(run: Run) -> None:
    _, off = run("%perfnb_watch status")
    run("%perfnb_watch on --interval 0.2")
    run("%perfnb_watch on --interval 0.2")
    sampled = threads()
    run("import time; time.sleep(0.5)")
    watched, _ = run("%%perfnb -q\nimport threading\n[each.name for each in threading.enumerate()]")
    again = threads()
    _, status = run("%perfnb_watch status")
    run("%perfnb_watch off")

    assert "The machine is not being sampled: %perfnb_watch on" in off
    assert sampled == again == ["perfnb-sampler"]
    assert watched.result.count("perfnb-sampler") == 1
    assert "Sampled every 0.2 s" in status
    assert threads() == []


def test_the_last_samples_of_the_machine_are_shown(run: Run) -> None:
    run("%perfnb_watch on --interval 0.2")
    run("import time; time.sleep(1.0)")

    _, status = run("%perfnb_watch status")

    assert "host    CPU busy " in status
    assert "GPU" in status


@pytest.mark.parametrize("line", ["on --interval 0.1", "on --interval nan", "often", "on --interval", "on --folder runs"])
def test_a_wrong_line_of_the_sampler_is_a_usage_error(shell: InteractiveShell, line: str) -> None:
    with pytest.raises(UsageError):
        shell.run_line_magic("perfnb_watch", line)

    assert threads() == []


def test_a_record_of_the_user_takes_the_place_of_the_sampler(run: Run) -> None:
    run("%perfnb_watch on --interval 0.2")

    result, _ = run(
        "import perfnb\nwith perfnb.record(hooks=False) as recorder:\n    for _ in recorder.steps([1, 2]): pass\n"
        "len(recorder.run.steps)"
    )
    again = threads()
    run("%perfnb_watch off")

    assert result.result == 2
    assert again == ["perfnb-sampler"]


def test_the_doctor_says_what_recording_can_use(run: Run) -> None:
    result, shown = run("%perfnb_doctor")

    for subject in ("torch", "NVIDIA GPU", "control group", "schedstat", "pressure"):
        assert subject in shown
    assert "<table" in result.result.html


def test_the_help_of_the_cell_magic_lists_its_options(shell: InteractiveShell) -> None:
    words = shell.find_line_magic("perfnb").__doc__

    for option in ("-o NAME", "-q", "--config NAME", "--trace N", "--save FOLDER", "--panel"):
        assert option in words
    assert begin_line(["%%perfnb?\n"]) == ["%%perfnb?\n"]


@pytest.mark.torch
class TestTraining:
    """What a card says of a loop that trains with torch."""

    @pytest.fixture
    def run(self, run: Run) -> Run:
        pytest.importorskip("torch")
        run(PLAIN_LOOP)
        return run

    def test_a_plain_loop_gets_its_verdict(self, run: Run, shell: InteractiveShell) -> None:
        result, shown = run("%%perfnb -o found\ntrain()")

        assert result.result == 1
        assert "perfnb  [!] Waiting for samples to be read takes " in shown
        assert "watched 13 steps in " in shown
        assert "cost of watching " in shown
        assert shell.user_ns["found"]["slow_sample_read"].severity > 0.8

    def test_the_last_watched_cell_is_what_the_panels_open_on(self, run: Run, shell: InteractiveShell) -> None:
        shell.user_ns["cfg"] = {"num_workers": 0}

        _, shown = run("%%perfnb --config cfg --panel\ntrain()")
        explored, whatif = shell.run_line_magic("perfnb_explore", ""), shell.run_line_magic("perfnb_whatif", "")
        whatif.num_workers.value = 2
        whatif.apply_button.click()

        assert "BottleneckPanel" in shown or shown.count("Waiting for samples to be read takes ") > 1
        assert isinstance(explored, BottleneckPanel)
        assert isinstance(whatif, WhatIfPanel)
        assert shell.user_ns["cfg"] == {"num_workers": 2}

    def test_a_loop_that_fails_late_is_diagnosed_up_to_there(self, run: Run) -> None:
        result, shown = run("%%perfnb\ntrain()\n1 / 0")

        assert isinstance(result.error_in_exec, ZeroDivisionError)
        assert "Diagnosis of the 13 steps before it:\nperfnb  [!] Waiting for samples to be read takes " in shown

    def test_forward_passes_alone_are_no_steps(self, run: Run) -> None:
        _, shown = run("%%perfnb\nnet = torch.nn.Linear(4, 1)\nfor _ in range(12): _ = net(torch.ones(4))")

        assert "No optimizer step ended here (12 forward passes seen). Hand-written updates" in shown

    def test_steps_marked_by_hand_are_steps(self, run: Run) -> None:
        _, shown = run("%%perfnb\nimport time, perfnb\nfor _ in range(12):\n    time.sleep(0.09)\n    perfnb.step()")

        assert "watched 12 steps in " in shown

    def test_a_torch_that_the_cell_hides_asks_for_a_second_run(self, tmp_path: Path) -> None:
        (tmp_path / "hidden.py").write_text("import torch\n")

        shown = shown_by_a_new_python("%%perfnb\nimport hidden", before=f"import sys; sys.path.insert(0, {str(tmp_path)!r})")

        assert "perfnb  [?] torch was imported inside this cell: run the cell once more" in shown


def test_a_missing_torch_is_named_in_each_card_and_a_missing_gpu_once_per_kernel() -> None:
    absent = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())"
    )

    shown = shown_by_a_new_python("%%perfnb\ntorch = 6 * 7\ntorch", "%reload_ext perfnb", "%%perfnb\n6 * 7", before=absent)

    assert shown.count("42\n") == 2
    assert shown.count("torch is not installed: no step times. pip install 'perfnb[torch]'") == 2
    assert shown.count("No NVIDIA GPU (") <= 1


def shown_by_a_new_python(*cells: str, before: str) -> str:
    """What the cells show in an IPython of a new process, where nothing is imported yet."""
    code = (
        f"{before}\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "settings = Config()\n"
        "settings.HistoryManager.enabled = False\n"
        "shell = InteractiveShell.instance(config=settings)\n"
        "shell.extension_manager.load_extension('perfnb')\n"
        f"for cell in {cells!r}: shell.run_cell(cell, store_history=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.stderr == ""
    return done.stdout
