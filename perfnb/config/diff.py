"""The difference between two configs as text."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from perfnb.config.home import Home
from perfnb.config.mapping import as_text


def config_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Unified diff of two configs; empty where they are equal.

    Two states of one home are compared in its own text: that of the file, or its own names. Other configs are compared as JSON.

    Parameters
    ----------
    before, after
        Two configs.

    Returns
    -------
    str
        Lines of a unified diff.

    Examples
    --------
    >>> print(config_diff({"num_workers": 0}, {"num_workers": 4}), end="")
    --- config before
    +++ config after
    @@ -1,3 +1,3 @@
     {
    -  "num_workers": 0
    +  "num_workers": 4
     }
    """
    homes = isinstance(before, Home) and isinstance(after, Home) and type(before) is type(after)
    texts = [each.text if homes and isinstance(each, Home) else as_text(each) for each in (before, after)]
    label = before.label if homes and isinstance(before, Home) else "config"
    lines = difflib.unified_diff(_lines(texts[0]), _lines(texts[1]), f"{label} before", f"{label} after")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    r"""Lines that end in \n only: a config may hold other characters that Python takes for the end of a line."""
    lines = [f"{line}\n" for line in text.split("\n")]
    return [*lines[:-1], *([] if lines[-1] == "\n" else [lines[-1][:-1]])]
