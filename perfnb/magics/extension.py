"""Loading and unloading: what %load_ext perfnb adds to an IPython, and nothing of it left after %unload_ext."""

from __future__ import annotations

from typing import Final

from IPython.core.interactiveshell import InteractiveShell

from perfnb.magics.actions import ActionMagics
from perfnb.magics.cell_text import begin_line
from perfnb.magics.commands import PerfnbMagics
from perfnb.magics.completion import Completer
from perfnb.magics.display import forget_display, register_display
from perfnb.magics.probing import forget_probe, register_probe

_REGISTERED: Final = PerfnbMagics.__name__
_ACTIONS: Final = ActionMagics.__name__
"""Names under which IPython keeps the magics' objects."""


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Show perfnb's values as cards, and add the magics: `%load_ext perfnb`.

    Parameters
    ----------
    shell
        The running IPython.
    """
    unload_ipython_extension(shell)  # twice is once
    register_display(shell)
    magics = PerfnbMagics(shell)
    actions = ActionMagics(shell, magics.watching)
    shell.register_magics(magics, actions)
    register_probe(shell)
    Completer(shell, {**magics.parsers, **actions.parsers}, actions.fix_names).register()
    shell.events.register("pre_run_cell", magics.watching.before_cell)
    shell.events.register("post_run_cell", magics.after_cell)
    # First of all: the line must be gone before IPython takes it for a magic that is given the whole cell as a text.
    shell.input_transformer_manager.cleanup_transforms.insert(0, begin_line)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take back what `%load_ext perfnb` did: `%unload_ext perfnb`.

    Parameters
    ----------
    shell
        The running IPython.
    """
    forget_display(shell)
    forget_probe(shell)
    transforms = shell.input_transformer_manager.cleanup_transforms
    transforms[:] = [each for each in transforms if each is not begin_line]
    registry = shell.magics_manager.registry
    magics, actions = registry.pop(_REGISTERED, None), registry.pop(_ACTIONS, None)
    if not isinstance(magics, PerfnbMagics) or not isinstance(actions, ActionMagics):
        return
    Completer(shell, {**magics.parsers, **actions.parsers}, actions.fix_names).forget()
    magics.close()
    shell.events.unregister("pre_run_cell", magics.watching.before_cell)
    shell.events.unregister("post_run_cell", magics.after_cell)
    for each in (magics, actions):
        for kind, names in each.magics.items():
            for name in names:
                shell.magics_manager.magics[kind].pop(name, None)
