"""What the words of a magic's line name: the user's runs, configs and variables."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

if TYPE_CHECKING:
    from perfnb.prediction import Change
    from perfnb.run import Run


class Names:
    """The variables of a notebook.

    Attributes
    ----------
    variables
        Name to value, the user's own mapping: what is put there is theirs.
    """

    def __init__(self, variables: dict[str, Any]) -> None:
        self.variables = variables

    def run(self, name: str) -> Run:
        """The run that a variable holds, or that lies at a path.

        Parameters
        ----------
        name
            A variable that holds a Run, or the path of a trace or of a folder of traces.

        Returns
        -------
        Run
            The run.

        Raises
        ------
        UsageError
            If the variable holds something else, or there is neither.
        PerfnbError
            If what lies there cannot be read.
        """
        from perfnb.read.any_run import read_any  # noqa: PLC0415 - loading the extension must stay cheap
        from perfnb.run import Run  # noqa: PLC0415 - the same

        if name in self.variables:
            value = self.variables[name]
            if isinstance(value, Run):
                return value
            message = f"{name} holds a {type(value).__name__}, not a Run: read one with perfnb.read_trace(path)"
            raise UsageError(message)
        if not Path(name).expanduser().exists():
            message = f"no variable named {name} holds a Run, and there is no file or folder of that name"
            raise UsageError(message)
        return read_any(Path(name).expanduser())

    def config_beside(self, name: str, run: Run) -> Mapping[str, Any]:
        """The config of a run, or for a path that of the config.json beside it, as on the command line.

        Parameters
        ----------
        name
            What the run was named by.
        run
            The run.

        Returns
        -------
        Mapping
            Knob to value.
        """
        from perfnb.config.json_file import config_beside  # noqa: PLC0415 - loading the extension must stay cheap

        return run.config if name in self.variables else config_beside(Path(name).expanduser(), run.config)

    def config(self, name: str) -> Mapping[str, Any]:
        """The config that a variable holds; the name is looked up, never evaluated.

        Parameters
        ----------
        name
            A variable that holds a mapping of knobs to values.

        Returns
        -------
        Mapping
            Knob to value.

        Raises
        ------
        UsageError
            If there is no such variable, or it holds something else.
        """
        value = self.variables.get(name)
        if not isinstance(value, Mapping):
            there = f"{name} holds a {type(value).__name__}" if name in self.variables else f"there is no variable {name}"
            message = f"{there}: --config takes the name of a variable that holds a mapping of knobs to values"
            raise UsageError(message)
        return value

    def edits(self, name: str) -> dict[str, Any]:
        """Apply and undo that put the new config into the variable; a config that was edited since raises StaleChange.

        Parameters
        ----------
        name
            A variable that holds a config.

        Returns
        -------
        dict
            `on_apply`, `on_undo` and `home`, as the panels take them.
        """
        from perfnb.apply import apply, undo  # noqa: PLC0415 - loading the extension must stay cheap

        def put(edit: Callable[..., Mapping[str, Any]]) -> Callable[..., Mapping[str, Any]]:
            def edited(changes: Sequence[Change], _: Mapping[str, Any]) -> Mapping[str, Any]:
                config = edit(changes, self.config(name))
                self.variables[name] = config
                return config

            return edited

        return {"on_apply": put(apply), "on_undo": put(undo), "home": f"{name} is a new object: run the cells that use it again"}


def unquoted(word: str) -> str:
    """A word of a magic's line without the quotes round it: IPython splits at blanks, but leaves them.

    Examples
    --------
    >>> unquoted("'my runs'"), unquoted("runs")
    ('my runs', 'runs')
    """
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word


def variable(word: str, option: str) -> str:
    """A word that can name a variable.

    Parameters
    ----------
    word
        What was given.
    option
        The option that it was given to.

    Returns
    -------
    str
        The word.

    Raises
    ------
    UsageError
        If no variable can have that name.
    """
    if word.isidentifier() and not keyword.iskeyword(word):
        return word
    message = f"{option} takes the name of a variable, not {word!r}"
    raise UsageError(message)
