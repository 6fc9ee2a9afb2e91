"""%%perfnb in a real Jupyter kernel: what a cell does stays the user's, the card comes after it, the next cell is clean."""

from __future__ import annotations

import compileall
import json
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

import perfnb

client = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")
pytest.importorskip("torch")
pytestmark = pytest.mark.torch

LARGEST_LOAD_CPU_MS = 50
LARGEST_CARD_BYTES = 25_000
LONGEST_CELL_S = 120  # on a machine that many tests share

TRAINING = """
import time, torch
class Slow(torch.utils.data.Dataset):
    def __len__(self): return 13
    def __getitem__(self, index):
        time.sleep(0.085)
        return torch.ones(4)
net = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
def step(batch):
    optimizer.zero_grad()
    net(batch).sum().backward()
    optimizer.step()
def train(**settings):
    for batch in torch.utils.data.DataLoader(Slow(), **settings):
        step(batch)
"""

IS_CLEAN = """
import sys, threading
from perfnb.record.recorder import active
from torch.nn.modules import module
from torch.optim import optimizer as optimizers
(
    [each.name for each in threading.enumerate() if each.name.startswith("perfnb")],
    active(),
    len(module._global_forward_hooks), len(module._global_forward_pre_hooks),
    len(optimizers._global_optimizer_pre_hooks), len(optimizers._global_optimizer_post_hooks),
    torch.autograd.backward.__module__ == "torch.autograd" and not hasattr(torch.autograd.backward, "__wrapped__"),
    get_ipython().run_line_magic("perfnb", "-q None"),
)
"""


@dataclass
class Shown:
    """What a cell came to: the status of its reply, and its outputs in the order in which a notebook shows them."""

    status: str
    error: str
    outputs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lines(self) -> str:
        """All outputs as text, one below the other."""
        return "\n".join(_text(output) for output in self.outputs)

    @property
    def cards(self) -> list[dict[str, str]]:
        """The cards among the outputs."""
        return [output["data"] for output in self.outputs if "perfnb  [" in output.get("data", {}).get("text/plain", "")]


@dataclass
class Kernel:
    """A running kernel."""

    manager: Any
    client: Any

    def run(self, cell: str, *, interrupt_at: str = "") -> Shown:
        """Run a cell; interrupt it, as the stop button does, once it has printed a word."""
        message = self.client.execute(cell)
        outputs: list[dict[str, Any]] = []
        last = time.monotonic() + LONGEST_CELL_S
        while True:
            try:
                told = self.client.get_iopub_msg(timeout=1)
            except Empty:
                if not self.manager.is_alive():
                    pytest.fail(f"the kernel died of this cell: {cell}")
                if time.monotonic() > last:
                    pytest.fail(f"the kernel did not end this cell: {cell}")
                continue
            if told["parent_header"].get("msg_id") != message:
                continue
            content = told["content"]
            if told["msg_type"] == "status" and content["execution_state"] == "idle":
                break
            if told["msg_type"] in ("stream", "display_data", "execute_result", "error"):
                outputs.append({"type": told["msg_type"], **content})
            if interrupt_at and interrupt_at in content.get("text", ""):
                self.manager.interrupt_kernel()
        while True:
            reply = self.client.get_shell_msg(timeout=LONGEST_CELL_S)
            if reply["parent_header"].get("msg_id") == message:
                return Shown(reply["content"]["status"], reply["content"].get("ename", ""), outputs)


def _text(output: dict[str, Any]) -> str:
    if output["type"] == "error":
        return f"Traceback of {output['ename']}"
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Generator[Kernel]:
    """One kernel for all cells, in an empty folder, with the extension loaded and a training defined."""
    folder = tmp_path_factory.mktemp("kernel")
    compileall.compile_dir(Path(perfnb.__file__).parent, quiet=1)  # as an installer does, whatever PYTHONDONTWRITEBYTECODE says
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.chdir(folder)
        manager, talking = client.manager.start_new_kernel(kernel_name="python3")
    try:
        started = Kernel(manager, talking)
        measured = started.run(
            "import time\nstart = time.thread_time()\n%load_ext perfnb\nprint(1000 * (time.thread_time() - start))"
        )
        assert float(measured.lines) <= LARGEST_LOAD_CPU_MS
        first = started.run(f"%%perfnb\n{TRAINING}")
        assert first.status == "ok"
        assert len(first.cards) == 1
        assert "torch was imported inside" not in first.lines
        yield started
        assert list(folder.iterdir()) == []
    finally:
        talking.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy()


@pytest.fixture(autouse=True)
def _next_cell_is_clean(kernel: Kernel) -> Generator[None]:
    yield
    after = kernel.run(IS_CLEAN)
    assert after.status == "ok", after.lines
    assert after.lines.replace("\n", "").replace(" ", "") == "([],None,0,0,0,0,True,None)"


def test_a_cell_that_prints_and_returns_a_value_shows_both_then_the_card(kernel: Kernel) -> None:
    shown = kernel.run("%%perfnb\nprint('mine')\n6 * 7")

    assert shown.status == "ok"
    assert [_text(output) for output in shown.outputs[:2]] == ["mine\n", "42"]
    assert shown.outputs[1]["type"] == "execute_result"
    assert len(shown.outputs) == 3
    assert len(shown.cards) == 1


def test_a_training_gets_its_verdict_in_three_faces_small_enough_to_store(kernel: Kernel) -> None:
    shown = kernel.run("%%perfnb\ntrain()")

    (card,) = shown.cards
    assert set(card) == {"text/html", "text/markdown", "text/plain"}
    assert card["text/plain"].startswith("perfnb  [!] Waiting for samples to be read takes ")
    assert "watched 13 steps in " in card["text/plain"]
    assert len(json.dumps(card)) <= LARGEST_CARD_BYTES
    for never in ("<script", "<iframe", "<style", "http"):
        assert never not in card["text/html"].replace("http://www.w3.org", "")


def test_a_training_with_workers_is_watched_and_they_are_no_unwatched_processes(kernel: Kernel) -> None:
    shown = kernel.run("%%perfnb\ntrain(num_workers=1)")

    assert "watched 13 steps in " in shown.lines
    assert "not watched" not in shown.lines


def test_a_training_without_a_loader_is_judged_by_the_rest(kernel: Kernel) -> None:
    shown = kernel.run("%%perfnb\nfor _ in range(13):\n    time.sleep(0.09)\n    step(torch.ones(4))")

    assert "watched 13 steps in " in shown.lines
    assert "Waiting for samples to be read takes" not in shown.lines


def test_a_short_training_is_not_judged(kernel: Kernel) -> None:
    shown = kernel.run("%%perfnb\nfor _ in range(6): step(torch.ones(4))")

    assert "perfnb  [?] Too short to judge: 6 steps, 10 needed\nsteps   " in shown.lines


def test_a_cell_that_raises_fails_with_its_own_traceback_first(kernel: Kernel) -> None:
    alone = kernel.run("1 / 0")

    shown = kernel.run("%%perfnb\n1 / 0")

    assert (shown.status, shown.error) == ("error", "ZeroDivisionError")
    assert [output["type"] for output in shown.outputs] == ["error", "display_data"]
    assert len(shown.outputs[0]["traceback"]) == len(alone.outputs[0]["traceback"])
    assert "perfnb  [x] Cell failed after " in shown.lines


def test_a_cell_that_is_interrupted_fails_and_is_diagnosed_up_to_there(kernel: Kernel) -> None:
    shown = kernel.run("%%perfnb\ntrain()\nprint('trained')\ntime.sleep(60)", interrupt_at="trained")

    assert (shown.status, shown.error) == ("error", "KeyboardInterrupt")
    assert [output["type"] for output in shown.outputs] == ["stream", "error", "display_data"]
    assert (
        "(KeyboardInterrupt). Diagnosis of the 13 steps before it:\nperfnb  [!] Waiting for samples to be read takes "
        in shown.lines
    )


def test_a_cell_that_awaits_gives_its_value(kernel: Kernel) -> None:
    shown = kernel.run("%%perfnb\nimport asyncio\nawait asyncio.sleep(0.01, 'slept')")

    assert shown.status == "ok"
    assert _text(shown.outputs[0]) == "'slept'"
    assert len(shown.cards) == 1


def test_an_interrupted_await_fails_and_gets_its_card(kernel: Kernel) -> None:
    # ipykernel 7.4 acts on the signal when its loop wakes up next
    cell = "%%perfnb\nprint('waits', flush=True)\nfor _ in range(600): await asyncio.sleep(0.1)"

    shown = kernel.run(cell, interrupt_at="waits")

    assert shown.status == "error"
    assert "perfnb  [x] Cell failed after " in shown.lines
    assert f"({shown.error}). No optimizer step ended before it" in shown.lines


@pytest.mark.parametrize(
    "launch", ["!sleep 1", "import subprocess\n_ = subprocess.run(['sleep', '1'])", "import os\n_ = os.system('sleep 1')"]
)
def test_processes_that_a_cell_starts_are_counted_as_unseen(kernel: Kernel, launch: str) -> None:
    shown = kernel.run(f"%%perfnb\n{launch}")

    assert "1 child process not watched: record in the script, read the run folder" in shown.lines


def test_time_stands_above_or_below(kernel: Kernel) -> None:
    for cell in ("%%perfnb\n%%time\n6 * 7", "%%time\n%%perfnb\n6 * 7"):
        shown = kernel.run(cell)

        assert shown.status == "ok"
        assert "Wall time" in shown.lines
        assert "42" in shown.lines
        assert len(shown.cards) == 1


def test_running_a_cell_again_gives_the_same_and_never_a_second_sampler(kernel: Kernel) -> None:
    names = "import threading\n[each.name for each in threading.enumerate() if each.name == 'perfnb-sampler']"

    for _ in range(3):
        assert "['perfnb-sampler']" in kernel.run(f"%%perfnb -q\n{names}").lines


def test_a_wrong_option_is_a_usage_error_and_nothing_runs(kernel: Kernel) -> None:
    shown = kernel.run("%%perfnb --speed 3\nprint('ran')")

    assert (shown.status, shown.error) == ("error", "UsageError")
    assert "ran" not in shown.lines


def test_a_profiler_window_marks_its_steps(kernel: Kernel, tmp_path: Path) -> None:
    shown = kernel.run(f"%%perfnb --trace 3 --save {tmp_path}/run\nfor _ in range(2): train()")
    profiled = kernel.run(f"import perfnb\nint(perfnb.read_run('{tmp_path}/run').steps['is_profiled'].sum())")

    assert len(shown.cards) == 1
    assert 3 <= int(profiled.lines) <= 10  # those on either side of the window are marked too
