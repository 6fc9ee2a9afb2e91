"""The tutorial: a copy of its notebook and its samples to work on, opened in JupyterLab or run to an HTML page."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from perfnb.errors import PerfnbError

NOTEBOOK: Final = Path("notebooks/tutorial.ipynb")
SAMPLES: Final = (Path("data/samples/slow_loader"), Path("data/samples/slow_rank"))
"""Folders that the notebook reads, where they stand in the repository and, below `tutorial_files`, in a wheel."""

_OUTSIDE_ADDRESSES: Final = ("mathjax_url", "require_js_url", "widget_renderer_url", "jupyter_widgets_base_url")
"""Settings of nbconvert by which its page would load scripts from the network; the tutorial needs none of them."""

_ALLOWED: Final = ("--allow-root",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
"""JupyterLab refuses to start as root, the one user that many containers have; it listens on this machine only, with a token."""

_PACKAGE: Final = Path(__file__).resolve().parent


class TutorialError(PerfnbError):
    """The tutorial cannot be copied, opened or run here."""


def copy_tutorial(folder: Path) -> Path:
    """A notebook to work on, with its samples beside it as in the repository; what is there already is kept.

    Parameters
    ----------
    folder
        Where to put them; made where it does not exist.

    Returns
    -------
    pathlib.Path
        The notebook in that folder.

    Raises
    ------
    TutorialError
        If neither this installation nor a repository around it holds the notebook.
    """
    source = _source()
    for sample in SAMPLES:
        shutil.copytree(source / sample, folder / sample, dirs_exist_ok=True)
    notebook = folder / NOTEBOOK
    if not notebook.exists():
        notebook.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / NOTEBOOK, notebook)
    return notebook


def open_tutorial(folder: Path) -> Path:
    """The notebook to work on, after JupyterLab showed it and the user ended JupyterLab.

    Parameters
    ----------
    folder
        Where the copy to work on lies or is to be made.

    Returns
    -------
    pathlib.Path
        The notebook in that folder.

    Raises
    ------
    TutorialError
        If JupyterLab is not installed or does not start.
    """
    _require("jupyterlab")
    notebook = copy_tutorial(folder)
    command = [sys.executable, "-m", "jupyterlab", f"--LabApp.default_url=/lab/tree/{notebook.name}", *_ALLOWED]
    done = subprocess.run(command, cwd=notebook.parent, check=False)  # noqa: S603 - our own words only, no shell
    if done.returncode:
        message = f"JupyterLab ended with exit code {done.returncode}; your copy is {notebook}"
        raise TutorialError(message)
    return notebook


def execute_tutorial(page: Path) -> Path:
    """The tutorial as an HTML page with everything that its cells show, run from the first to the last here and now.

    Parameters
    ----------
    page
        The file to write; overwritten where it exists.

    Returns
    -------
    pathlib.Path
        The same file.

    Raises
    ------
    TutorialError
        If nbconvert is not installed, or a cell fails.
    """
    _require("nbconvert")
    page = page.absolute()
    page.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="perfnb-tutorial-") as scratch:
        notebook = copy_tutorial(Path(scratch))
        command = [
            *(sys.executable, "-m", "nbconvert", "--to", "html", "--execute", "--log-level", "WARN"),
            "--ExecutePreprocessor.store_widget_state=False",  # else a panel's static face vanishes where there is no kernel
            *(f"--HTMLExporter.{address}=" for address in _OUTSIDE_ADDRESSES),
            *("--output-dir", str(page.parent), "--output", page.name, notebook.name),
        ]
        done = subprocess.run(  # noqa: S603 - our own words and the user's path, no shell
            command, cwd=notebook.parent, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False
        )
    if done.returncode:
        last_words = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        message = f"the tutorial did not run to its end: {last_words[0]}; open it with `perfnb tutorial` to see which cell failed"
        raise TutorialError(message)
    return page


def _source() -> Path:
    for candidate in (_PACKAGE / "tutorial_files", _PACKAGE.parent):
        if all((candidate / part).exists() for part in (NOTEBOOK, *SAMPLES)):
            return candidate
    message = f"{NOTEBOOK.name} is not part of this installation: install perfnb from its wheel or its repository"
    raise TutorialError(message)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        message = f"{package} is not installed: pip install 'perfnb[lab]'"
        raise TutorialError(message)
