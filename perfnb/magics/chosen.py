"""What a magic works on: a run, its config, and where a new config goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from perfnb.magics.names import Names, unquoted

if TYPE_CHECKING:
    from perfnb.findings import Diagnosis
    from perfnb.magics.watching import Last
    from perfnb.run import Run


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A run with its config.

    Attributes
    ----------
    run
        The run.
    config
        Any home of a config.
    name
        What holds the config, where the user named it: a variable or a file. A new config goes there.
    edits
        `on_apply`, `on_undo` and `home` for a panel.
    diagnosis
        Of the run, where it was made already.
    """

    run: Run
    config: Any
    name: str | None = None
    edits: Mapping[str, Any] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None


def chosen(names: Names, last: Last | None, run: str | None, config: str | None, *, reads_logs: bool = False) -> Chosen:
    """The run and the config that a line names; by default those of the last watched cell.

    Parameters
    ----------
    names
        The user's variables.
    last
        What the last watched cell came to.
    run
        A variable or a path.
    config
        A variable or a config file.
    reads_logs
        Whether a path may be a log of the training.

    Returns
    -------
    Chosen
        Run and config.

    Raises
    ------
    UsageError
        If there is no such run or config, or no cell was watched yet.
    PerfnbError
        If what lies at the path cannot be read.
    """
    diagnosis = None
    if run is not None:
        name = unquoted(run)
        found = names.run(name, reads_logs=reads_logs)
        beside: Any = names.config_beside(name, found)
    elif last is not None:
        found, beside, diagnosis, config = last.run, last.run.config, last.diagnosis, config or last.config
    else:
        message = "no cell was watched yet: name a variable that holds a Run, or the path of a trace"
        raise UsageError(message)
    if config is None:
        return Chosen(found, beside, diagnosis=diagnosis)
    named = unquoted(config)
    return Chosen(found, names.config(named), named, names.edits(named), diagnosis)
