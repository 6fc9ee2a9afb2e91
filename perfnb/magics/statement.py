"""A statement of a magic's line, run as the cell's own code would be."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Mapping
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell

_NAME: Final = "<perfnb statement>"


def run_statement(shell: InteractiveShell, statement: str, local_names: Mapping[str, Any] | None) -> Any:
    """Run a statement with the user's variables.

    Parameters
    ----------
    shell
        The running IPython.
    statement
        Python, or what IPython makes Python of.
    local_names
        Variables of the function in which the magic was called.

    Returns
    -------
    object
        The value of its last expression, None where it ends in something else.

    Raises
    ------
    BaseException
        What the statement raises.
    """
    ipython: Any = shell  # most of it has no types
    source = ipython.transform_cell(statement)
    linecache.cache[_NAME] = (len(source), None, source.splitlines(keepends=True), _NAME)  # so that a traceback shows it
    tree = ipython.transform_ast(ipython.compile.ast_parse(source, filename=_NAME))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(ipython.compile(tree, _NAME, "exec"), shell.user_ns, local_names)  # noqa: S102 - the user's own code
    if last is None:
        return None
    return eval(ipython.compile(ast.Expression(last.value), _NAME, "eval"), shell.user_ns, local_names)  # noqa: S307 - as above
