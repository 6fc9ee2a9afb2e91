"""What the words of a magic's line name: the user's runs, configs and variables."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from IPython.core.error import UsageError

from perfnb.errors import PerfnbError

if TYPE_CHECKING:
    from perfnb.config.home import Home
    from perfnb.prediction import Change
    from perfnb.run import Run

_TAKES: Final = (
    "--config takes the name of a variable that holds a config (a mapping, dataclass, Namespace, TrainingArguments, DataLoader), "
    "or the path of a .json, .yaml or .toml file"
)


class Names:
    """The variables of a notebook.

    Attributes
    ----------
    variables
        Name to value, the user's own mapping: what is put there is theirs.
    """

    def __init__(self, variables: dict[str, Any]) -> None:
        self.variables = variables

    def run(self, name: str, *, reads_logs: bool = False) -> Run:
        """The run that a variable holds, or that lies at a path.

        Parameters
        ----------
        name
            A variable that holds a Run, or the path of a trace, of a folder of traces or of a run folder.
        reads_logs
            Whether the path may also be a log of the training.

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
        from perfnb.read.any_run import read_any, read_run_or_log  # noqa: PLC0415 - loading the extension must stay cheap
        from perfnb.run import Run  # noqa: PLC0415 - the same

        if name in self.variables:
            value = self.variables[name]
            if isinstance(value, Run):
                return value
            message = f"{name} holds a {type(value).__name__}, not a Run: read one with perfnb.read_trace(path)"
            raise UsageError(message)
        path = Path(name).expanduser()
        if not path.exists():
            message = f"no variable named {name} holds a Run, and there is no file or folder of that name"
            raise UsageError(message)
        return read_run_or_log(path) if reads_logs else read_any(path)

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

    def config(self, name: str) -> Home:
        """The config that a variable holds, or a file; the name is looked up, never evaluated.

        Parameters
        ----------
        name
            A variable that holds a config, any home of one as in `perfnb.as_config`, or the path of a config file.

        Returns
        -------
        Home
            Knob to value.

        Raises
        ------
        UsageError
            If there is no such variable or file, or it holds no config.
        """
        from perfnb.config.as_config import as_config  # noqa: PLC0415 - loading the extension must stay cheap
        from perfnb.config.file_home import FileHome  # noqa: PLC0415 - the same

        if name not in self.variables and not _is_config_file(name):
            raise UsageError(f"there is no variable {name}: {_TAKES}")  # noqa: EM102 - in one place
        try:
            if name not in self.variables:
                return FileHome(Path(name).expanduser())
            return as_config(self.variables[name])
        except PerfnbError as error:
            kind = f"{name} holds a {type(self.variables[name]).__name__}: {_TAKES}; " if name in self.variables else ""
            message = f"{kind}{error}"
            raise UsageError(message) from error

    def function(self, name: str, option: str) -> Callable[..., Any]:
        """The function that a variable holds.

        Raises
        ------
        UsageError
            If it holds none.
        """
        value: Callable[..., Any] | None = self.variables.get(variable(name, option))
        if not callable(value):
            there = f"{name} holds a {type(value).__name__}" if name in self.variables else f"there is no variable {name}"
            message = f"{there}: {option} takes the name of a variable that holds a function"
            raise UsageError(message)
        return value

    def prediction(self, name: str) -> Any:
        """The suggestion or prediction that a variable holds.

        Raises
        ------
        UsageError
            If it holds none.
        """
        from perfnb.fix import Suggestion  # noqa: PLC0415 - loading the extension must stay cheap
        from perfnb.prediction import Prediction, Unknown  # noqa: PLC0415 - the same

        value = self.variables.get(name)
        if not isinstance(value, (Suggestion, Prediction, Unknown)):
            there = f"{name} holds a {type(value).__name__}" if name in self.variables else f"there is no variable {name}"
            message = f"{there}: --prediction takes the name of a variable that holds a Suggestion or a Prediction"
            raise UsageError(message)
        return value

    def edits(self, name: str) -> dict[str, Any]:
        """Apply and undo that put the new config where the old one is; one that was edited since raises StaleChange.

        Parameters
        ----------
        name
            A variable that holds a config, or a config file.

        Returns
        -------
        dict
            `on_apply`, `on_undo` and `home`, as the panels take them.
        """
        from perfnb.apply import apply, undo  # noqa: PLC0415 - loading the extension must stay cheap
        from perfnb.config.file_home import FileHome  # noqa: PLC0415 - the same

        home = self.config(name)
        if isinstance(home, FileHome):
            written = f"{home.path.name} is written: start the training again"
            return {"on_apply": apply, "on_undo": undo, "home": written}

        def put(edit: Callable[..., Any]) -> Callable[..., Any]:
            def edited(changes: Sequence[Change], _: Any) -> Any:
                self.config(name)  # says what is wrong where the variable is gone or holds something else by now
                config = edit(changes, self.variables[name])
                self.variables[name] = config
                return config

            return edited

        return {"on_apply": put(apply), "on_undo": put(undo), "home": f"{name} is a new object: run the cells that use it again"}


def _is_config_file(name: str) -> bool:
    from perfnb.config.file_home import FORMATS  # noqa: PLC0415 - loading the extension must stay cheap

    return Path(name).suffix.lower() in FORMATS and Path(name).expanduser().is_file()


def unquoted(word: str) -> str:
    """A word of a magic's line without the quotes round it: IPython splits at blanks, but leaves them.

    Examples
    --------
    >>> unquoted("'my runs'"), unquoted("runs")
    ('my runs', 'runs')
    """
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word


def config_name(word: str) -> str:
    """A word that can name a config: a variable, or a file.

    Raises
    ------
    UsageError
        If it is neither.
    """
    name = unquoted(word)
    return name if _is_config_file(name) else variable(name, "--config")


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
