"""Checks of what is installed: the libraries that perfnb needs, those that make more possible, and the machine."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Final

from perfnb.doctor import Line, machine_lines
from perfnb.validate.check import NotAsExpected, NotTested, Planned

GROUP: Final = "installation"
MACHINE: Final = "machine"

NEEDED: Final = (
    "altair", "anywidget", "ipython", "ipywidgets", "isal", "markupsafe", "msgspec", "numpy", "nvidia-ml-py", "pandas",
    "platformdirs", "psutil", "tqdm", "vl-convert-python",
)  # fmt: skip
"""What `pip install perfnb` brings."""

OPTIONAL: Final = {
    "torch": ("recording and probing trainings", "pip install 'perfnb[torch]'; without a GPU read environment.md first"),
    "jupyterlab": ("notebooks in the browser", "pip install 'perfnb[lab]'"),
    "nbconvert": ("perfnb tutorial --execute", "pip install 'perfnb[lab]'"),
    "ruamel.yaml": ("changing YAML configs", "pip install 'perfnb[configs]'"),
    "tomlkit": ("changing TOML configs", "pip install 'perfnb[configs]'"),
    "numba": ("reading large traces faster", "pip install 'perfnb[fast]'"),
    "distributed": ("summaries of many ranks on a Dask cluster", "pip install 'perfnb[dask]'"),
    "tensorboard": ("reading TensorBoard's event files", "pip install 'perfnb[logs]'"),
    "mlflow-skinny": ("reading runs from an MLflow server", "pip install 'perfnb[logs]'"),
}
"""Library to what it is for and how to get it."""

_IMPORT_ALL: Final = "import perfnb; print(sum(getattr(perfnb, name) is not None for name in perfnb.__all__))"
_PATIENCE_S: Final = 120.0


def planned() -> list[Planned]:
    """Checks of the installation, then of the machine. Nothing of Jupyter is imported here: the names load in a child."""
    return [
        *(Planned(GROUP, name, lambda name=name: _needed(name)) for name in NEEDED),  # type: ignore[misc]
        Planned(GROUP, "every public name loads", _every_name),
        *(Planned(GROUP, f"{name} (optional)", lambda name=name: _optional(name)) for name in OPTIONAL),  # type: ignore[misc]
        *(Planned(MACHINE, line.subject, lambda line=line: _line(line)) for line in _of_the_machine()),  # type: ignore[misc]
    ]


def _needed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        found, advice = "not installed", "pip install --upgrade perfnb"
        raise NotAsExpected(found, advice) from error


def _optional(name: str) -> str:
    purpose, advice = OPTIONAL[name]
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        if name == "mlflow-skinny":
            return _whole_mlflow(purpose, advice)
        reason = f"not installed: needed for {purpose}"
        raise NotTested(reason, advice) from error


def _whole_mlflow(purpose: str, advice: str) -> str:
    try:
        return f"mlflow {importlib.metadata.version('mlflow')}"
    except importlib.metadata.PackageNotFoundError as error:
        reason = f"not installed: needed for {purpose}"
        raise NotTested(reason, advice) from error


def _every_name() -> str:
    done = subprocess.run(  # noqa: S603 - this interpreter on our own words
        [sys.executable, "-c", _IMPORT_ALL], capture_output=True, encoding="utf-8", timeout=_PATIENCE_S, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        advice = "a library that perfnb needs is damaged or too old: pip install --upgrade perfnb"
        raise NotAsExpected(last, advice)
    return f"{done.stdout.strip()} names"


def _of_the_machine() -> list[Line]:
    """What the doctor looks at, without the libraries that are looked at above and what only perfnb's own tests need."""
    libraries = {*NEEDED, *OPTIONAL, "Chromium"}
    return [line for line in machine_lines() if line.subject not in libraries]


def _line(line: Line) -> str:
    if not line.is_there:
        raise NotTested(line.found, line.remedy)
    return f"{line.found}: {line.remedy}" if line.remedy else line.found
