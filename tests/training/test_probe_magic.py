"""%perfnb_probe: names variables, never evaluates, shows a card, and puts its result where it is asked to."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from IPython.core.error import UsageError  # noqa: E402
from IPython.core.interactiveshell import InteractiveShell  # noqa: E402
from traitlets.config import Config  # noqa: E402

from perfnb.training.examples import curve_run, decay  # noqa: E402
from perfnb.training.probe_result import ProbeResult  # noqa: E402
from perfnb.training.probe_state import TrainingState  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def shell() -> Generator[InteractiveShell]:
    settings = Config()
    settings.HistoryManager.enabled = False
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(config=settings)
    made.extension_manager.load_extension("perfnb")
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step(batch: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(batch[0]) - batch[1]).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    x = torch.randn(40, 8, 3)
    made.user_ns |= {
        "step": step,
        "state": TrainingState(model, optimizer),
        "batches": [(each, each.sum(dim=1, keepdim=True)) for each in x],
        "recorded": curve_run(decay(100), config={"planned_steps": 400}),
        "empty": curve_run([]),
    }
    yield made
    made.extension_manager.unload_extension("perfnb")
    assert made.find_line_magic("perfnb_probe") is None
    InteractiveShell.clear_instance()


def test_a_probe_of_named_variables_shows_a_card_and_gives_its_result(shell: InteractiveShell) -> None:
    card = shell.run_line_magic("perfnb_probe", "step state batches --factors 10 100 --planned 400 -o told")

    told = shell.user_ns["told"]
    assert isinstance(told, ProbeResult)
    assert told.effects["change"].tolist() == ["x1", "x10", "x100"]
    faces = card.mimebundle()
    assert "Worth a change: learning_rate x100" in faces["text/plain"]
    assert "40 paired steps (10 % of the run)" in faces["text/plain"]
    assert "<svg" in faces["text/html"] or "data:image/svg" in faces["text/html"]
    assert "Worth a change" in repr(told)


def test_quiet_shows_nothing_and_the_run_tells_what_is_known(shell: InteractiveShell) -> None:
    line = "step state batches --steps 12 --run recorded --budget 60 -q -o told"

    assert shell.run_line_magic("perfnb_probe", line) is None
    told = shell.user_ns["told"]
    assert told.planned_steps == 400
    assert told.first_loss == pytest.approx(float(np.mean(decay(100)[:3])))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nothing state batches", "no variable nothing"),
        ("batches state batches", "holds a list, not a function"),
        ("step step batches", "make one with perfnb.TrainingState"),
        ("step state batches --steps 5", "takes 10 steps or more"),
        ("step state batches --knob seed", "a probe changes learning_rate"),
        ("step state recorded", "say how many steps"),
        ("step state batches --run empty", "has no rows"),
        ("step state batches -o 1x", "takes the name of a variable"),
        ("__import__('os') state batches", "no variable"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(shell: InteractiveShell, line: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        shell.run_line_magic("perfnb_probe", line)


def test_help_names_the_options(shell: InteractiveShell) -> None:
    words = shell.find_line_magic("perfnb_probe").__doc__

    for name in ("--factors", "--steps", "--planned", "--budget", "-o NAME", "STATE"):
        assert name in words
