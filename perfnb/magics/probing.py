"""%perfnb_probe: a probe of the training in this notebook, from variables that are named, and its card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, magics_class

from perfnb.errors import PerfnbError
from perfnb.magics.explained import argument, explained, given
from perfnb.magics.names import Names, variable

if TYPE_CHECKING:
    from perfnb.document import Bundle
    from perfnb.training.probe_result import ProbeResult

FACTORS: Final = (0.4, 2.5)
"""Compared with the present setting where none are given: the mid-run ladder of training.md 6."""


@magics_class
class ProbeMagics(Magics):
    """The magic `%perfnb_probe`."""

    @explained(
        argument(
            "step", metavar="STEP", help="a variable that holds the step function: STEP(batch) trains one step, gives its loss"
        ),
        argument(
            "state", metavar="STATE", help="a variable that holds a perfnb.TrainingState(model, optimizer, scheduler, scaler)"
        ),
        argument("batches", metavar="BATCHES", help="a variable that holds a list of batches, an iterator or a DataLoader"),
        argument(
            "--factors",
            nargs="+",
            type=float,
            default=list(FACTORS),
            metavar="F",
            help=f"what the setting is multiplied by; {' '.join(map(str, FACTORS))} by default, 1 is always run",
        ),
        argument(
            "--steps", type=int, default=None, metavar="N", help="steps of each branch, 10 or more; all of a list by default"
        ),
        argument("--knob", default="learning_rate", metavar="KNOB", help="learning_rate (default), weight_decay or momentum"),
        argument(
            "--planned", type=int, default=None, metavar="N", help="steps of the whole run: without it no probability passes 0.7"
        ),
        argument("--done", type=int, default=0, metavar="N", help="steps that the training has done before"),
        argument(
            "--first-loss", dest="first_loss", type=float, default=None, metavar="L", help="mean of the run's first three losses"
        ),
        argument(
            "--run",
            default=None,
            metavar="NAME",
            help="a variable that holds the recorded Run: tells the three before, if not given",
        ),
        argument("--budget", type=float, default=None, metavar="S", help="seconds after which no further branch is begun"),
        argument("-o", dest="variable", default=None, metavar="NAME", help="a variable for the ProbeResult"),
        argument("-q", dest="is_quiet", action="store_true", help="show nothing"),
    )
    def perfnb_probe(self, line: str) -> Bundle | None:
        """Ask the training itself: a few steps with other learning rates from here, on the same batches, then all is put back.

        The training goes on afterwards as if there had been no probe. It takes steps x branches x step time. Batches of an
        iterator are used up: they are in the result's `batches`.
        """
        asked = given.parse_argstring(self.perfnb_probe, line)
        names = Names(self.shell.user_ns)  # type: ignore[union-attr]
        target = None if asked.variable is None else variable(asked.variable, "-o")
        steps = asked.steps
        batches = _held(names, asked.batches, "BATCHES")
        if steps is None and not isinstance(batches, (list, tuple)):
            message = f"{asked.batches} is no list: say how many steps each branch takes, such as --steps 40"
            raise UsageError(message)
        try:
            result = _probed(names, asked, batches)
        except PerfnbError as error:
            raise UsageError(str(error)) from error
        if target is not None:
            names.variables[target] = result
        return None if asked.is_quiet else probe_card(result)


def probe_card(result: ProbeResult) -> Bundle:
    """The card of a probe: what follows, a line and a row per branch, and its chart where one can be drawn.

    Parameters
    ----------
    result
        What `perfnb.probe` gave.

    Returns
    -------
    Bundle
        In three faces.
    """
    from perfnb.charts import alternative, svg  # noqa: PLC0415 - loading the extension must stay cheap
    from perfnb.charts.training_probe import probe_chart  # noqa: PLC0415 - the same
    from perfnb.document import Items, Picture, Table, Verdict, bundle  # noqa: PLC0415 - the same
    from perfnb.errors import NoRendererError  # noqa: PLC0415 - the same
    from perfnb.training.drawing import probe_drawing, probe_table  # noqa: PLC0415 - the same

    *told, follows = result.sentences
    shown = probe_table(result)
    rows = tuple(tuple(str(cell) for cell in row) for row in shown.itertuples(index=False))
    table = Table("Branches", tuple(shown.columns), rows, right=frozenset(range(1, 7)))
    mark: Literal["", "!"] = "" if follows.startswith("Keep ") else "!"
    blocks: list[Any] = [Verdict(mark, follows, result.horizon), Items(tuple(told)), table]
    try:
        chart = probe_chart(probe_drawing(result))
        blocks.append(Picture(svg(chart), alternative(chart)))
    except NoRendererError:  # the table says the same
        pass
    return bundle(blocks)


def register_probe(shell: InteractiveShell) -> None:
    """Add `%perfnb_probe`."""
    shell.register_magics(ProbeMagics(shell))


def forget_probe(shell: InteractiveShell) -> None:
    """Take it back."""
    if shell.magics_manager.registry.pop(ProbeMagics.__name__, None) is not None:
        shell.magics_manager.magics["line"].pop("perfnb_probe", None)


def _probed(names: Names, asked: Any, batches: Any) -> ProbeResult:
    from perfnb.training.probe import probe  # noqa: PLC0415 - loading the extension must stay cheap
    from perfnb.training.probe_state import TrainingState  # noqa: PLC0415 - the same

    step, state = _held(names, asked.step, "STEP"), _held(names, asked.state, "STATE")
    if not callable(step):
        message = f"{asked.step} holds a {type(step).__name__}, not a function: STEP(batch) trains one step and gives its loss"
        raise UsageError(message)
    if not isinstance(state, TrainingState):
        found = type(state).__name__
        message = f"{asked.state} holds a {found}, not a state: make one with perfnb.TrainingState(model, optimizer, scheduler)"
        raise UsageError(message)
    planned, first, done = _known(names, asked)
    return probe(
        step,
        state,
        asked.factors,
        asked.steps,
        batches,
        planned_steps=planned,
        first_loss=first,
        done_steps=done,
        knob=asked.knob,
        budget_s=asked.budget,
        shows_progress=not asked.is_quiet,
    )


def _known(names: Names, asked: Any) -> tuple[int | None, float | None, int]:
    """Planned steps, first loss and steps done: as given, else as the run tells."""
    if asked.run is None:
        return asked.planned, asked.first_loss, asked.done
    from perfnb.detector import Unmeasured  # noqa: PLC0415 - loading the extension must stay cheap
    from perfnb.training.curve import curve_of  # noqa: PLC0415 - the same

    run = names.run(asked.run)
    try:
        curve = curve_of(run.training, run.config)
    except Unmeasured as reason:
        raise UsageError(str(reason)) from reason
    return (
        asked.planned or curve.planned_steps,
        curve.first_loss if asked.first_loss is None else asked.first_loss,
        asked.done or curve.done_steps,
    )


def _held(names: Names, name: str, what: str) -> Any:
    if name not in names.variables:
        message = f"there is no variable {name}: {what} takes the name of one"
        raise UsageError(message)
    return names.variables[name]
