"""What stands in a cell's text: the line `%%perfnb`, the magics below it, and the libraries that it names."""

from __future__ import annotations

import re
from typing import Any, Final

from IPython.core.inputtransformer2 import cell_magic

BEGIN: Final = "_perfnb_begin"
"""Line magic that stands in for the line `%%perfnb`."""

OTHER_PROCESS: Final = frozenset(
    {"!", "bash", "cmd", "perl", "pypy", "python", "python2", "python3", "ruby", "script", "sh", "sx", "system"}
)
"""Cell magics of IPython that hand the cell to another process."""

_cell_magic: Any = cell_magic  # IPython gives it no types
_OURS: Final = re.compile(r"%%perfnb(?:[ \t]+(?P<arguments>.*?))?[ \t]*\r?\n?")
_MAGIC: Final = re.compile(r"%%(?P<name>!|\w+)")
_TRAINING: Final = re.compile(r"\b(torch|torchvision|lightning|pytorch_lightning|transformers|accelerate)\b")


def begin_line(lines: list[str]) -> list[str]:
    r"""A cell's lines with `%%perfnb ...` at its top replaced by a call, all else and every line's number as it was.

    An input transformer of IPython: it may be called at any time, for cells that never run, so it does nothing else.

    Parameters
    ----------
    lines
        The cell's lines, each with its end.

    Returns
    -------
    list of str
        The same lines where the first that is not blank is no `%%perfnb`. Further ones right below become blank; another
        cell magic below takes the rest of the cell, as if it stood at the top.

    Examples
    --------
    >>> begin_line(["%%perfnb -q\n", "x = 1\n"])
    ["get_ipython().run_line_magic('_perfnb_begin', '-q')\n", 'x = 1\n']
    >>> begin_line(["%%perfnb\n", "%%time\n", "x = 1\n"])[1]
    "get_ipython().run_cell_magic('time', '', 'x = 1\\n')\n"
    """
    top = _first(lines, 0)
    matched = _OURS.fullmatch(lines[top]) if top < len(lines) else None
    if matched is None:
        return lines
    rest = list(lines)
    rest[top] = f"get_ipython().run_line_magic({BEGIN!r}, {matched['arguments'] or ''!r})\n"
    below = _first(rest, top + 1)
    while below < len(rest) and _OURS.fullmatch(rest[below]):
        rest[below] = "\n"
        below = _first(rest, below + 1)
    if below < len(rest) and rest[below].startswith("%%"):
        return [*rest[:below], *_cell_magic(rest[below:])]
    return rest


def magics_at_top(cell: str) -> list[str]:
    r"""Names of the cell magics that stand one below the other at a cell's top, `perfnb` included.

    Examples
    --------
    >>> magics_at_top("%%time\n%%perfnb -q\n%%bash\nls")
    ['time', 'perfnb', 'bash']
    """
    names = []
    for line in cell.splitlines():
        matched = _MAGIC.match(line)
        if matched:
            names.append(matched["name"])
        elif line.strip():
            break
    return names


def names_training(cell: str) -> bool:
    """Whether a cell names a library that trains with torch.

    Examples
    --------
    >>> names_training("from transformers import Trainer"), names_training("torchlight = 1")
    (True, False)
    """
    return _TRAINING.search(cell) is not None


def _first(lines: list[str], start: int) -> int:
    """Where the first line that is not blank stands, from `start` on; their number if none does."""
    return next((index for index in range(start, len(lines)) if lines[index].strip()), len(lines))
