"""Loading and unloading: what %load_ext perfnb adds to an IPython, and nothing of it left after %unload_ext."""

from __future__ import annotations

from typing import Final

from IPython.core.interactiveshell import InteractiveShell

from perfnb.magics.cell_text import begin_line
from perfnb.magics.commands import PerfnbMagics
from perfnb.magics.display import forget_display, register_display
from perfnb.magics.probing import forget_probe, register_probe

_REGISTERED: Final = PerfnbMagics.__name__
"""Name under which IPython keeps the magics' object."""


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
    shell.register_magics(magics)
    register_probe(shell)
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
    magics = shell.magics_manager.registry.pop(_REGISTERED, None)
    if not isinstance(magics, PerfnbMagics):
        return
    magics.close()
    shell.events.unregister("pre_run_cell", magics.watching.before_cell)
    shell.events.unregister("post_run_cell", magics.after_cell)
    for kind, names in magics.magics.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
