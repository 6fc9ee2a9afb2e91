"""What this machine offers to perfnb, and what a trace can tell: one line each, with the remedy where something is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import perfnb
from perfnb.document import Bundle, Table, bundle
from perfnb.read.any_run import read_any
from perfnb.record.cgroup import ControlGroup
from perfnb.record.nvidia import NoDevices, devices

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
"""Names under which systems install Chromium or Chrome; the environment variable PERFNB_CHROMIUM comes before them."""

_GIBIBYTE: Final = 1 << 30
_LIBRARIES: Final = ("pandas", "numpy", "altair", "ipywidgets", "anywidget", "ipython")
_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
_PRESSURE: Final = Path("/proc/pressure/cpu")


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at.

    Attributes
    ----------
    subject
        What was looked at.
    found
        What is there.
    is_there
        Whether perfnb can use it.
    remedy
        What to do where it is not there; empty where nothing needs doing.
    """

    subject: str
    found: str
    is_there: bool = True
    remedy: str = ""


def machine_lines() -> tuple[Line, ...]:
    """One line per thing on this machine that perfnb can use; imports neither torch nor a chart or widget library.

    Returns
    -------
    tuple of Line
        Versions first, then devices, clocks and programs.

    Examples
    --------
    >>> [line.subject for line in machine_lines()][:2]
    ['perfnb', 'Python']
    """
    return tuple(_lines())


def machine_bundle() -> Bundle:
    """The lines of `machine_lines` as a notebook shows them.

    Returns
    -------
    Bundle
        One table, in three faces.
    """
    rows = tuple(("ok" if line.is_there else "--", line.subject, line.found, line.remedy) for line in machine_lines())
    return bundle([Table("This machine", ("", "what", "found", "what to do"), rows)])


def trace_lines(path: Path) -> tuple[Line, ...]:
    """One line per question that a detector asks: whether this trace can answer it, and what it lacks if not.

    Parameters
    ----------
    path
        A trace file, or a folder with one trace per rank.

    Returns
    -------
    tuple of Line
        Detectors that could look first; the remedy of the others is their own reason.

    Raises
    ------
    PerfnbError
        If no trace can be read there.
    """
    diagnosis = perfnb.diagnose(read_any(path))
    looked = {
        **{finding.detector: finding.category for finding in (*diagnosis.found, *diagnosis.possible)},
        **{cleared.detector: cleared.category for cleared in diagnosis.cleared},
    }
    return (
        *(Line(name, f"can be judged ({looked[name]})") for name in sorted(looked)),
        *(
            Line(item.detector, f"cannot be judged ({item.category})", is_there=False, remedy=item.reason)
            for item in diagnosis.unmeasured
        ),
    )


def _lines() -> Iterator[Line]:
    yield Line("perfnb", perfnb.__version__)
    yield Line("Python", platform.python_version())
    for name in _LIBRARIES:
        yield _package(name, f"pip install {name}")
    yield _package("vl-convert-python", "pip install vl-convert-python: until then cards show a table in place of the chart")
    yield _torch()
    yield _package("jupyterlab", "pip install 'perfnb[lab]'")
    yield _package("nbconvert", "pip install 'perfnb[lab]': needed by perfnb tutorial --execute")
    yield _devices()
    yield _package("nvidia-ml-py", "pip install nvidia-ml-py: until then GPUs are not sampled while recording")
    yield Line("CPU cores", str(_cores()))
    yield _control_group()
    yield _schedstat()
    yield _pressure()
    yield _browser()


def _package(name: str, remedy: str) -> Line:
    try:
        return Line(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Line(name, "not installed", is_there=False, remedy=remedy)


def _torch() -> Line:
    """Version and build of torch, read from its files: importing it takes seconds and hundreds of megabytes."""
    line = _package("torch", "pip install 'perfnb[torch]' where there is a GPU; without one read environment.md first")
    build = _torch_build() if line.is_there else None
    return Line("torch", f"{line.found} ({build})") if build else line


def _torch_build() -> str | None:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    version_file = Path(spec.origin).with_name("version.py")
    if not version_file.is_file():
        return None
    stated = re.search(r"^cuda\b[^=\n]*=\s*'?([\w.]+)'?", version_file.read_text(encoding="utf-8"), re.MULTILINE)
    if stated is None:
        return None
    return "CPU build" if stated[1] == "None" else f"CUDA {stated[1]} build"


def _devices() -> Line:
    found = devices()
    if isinstance(found, NoDevices):
        return Line(
            "NVIDIA GPU", f"none: {found.reason}", is_there=False, remedy="traces of GPU jobs can be read here all the same"
        )
    names = ", ".join(f"{device.name} ({device.memory_bytes / _GIBIBYTE:.0f} GiB)" for device in found)
    if any(device.is_split for device in found):
        return Line("NVIDIA GPU", names, remedy="utilisation is not available under MIG")
    return Line("NVIDIA GPU", names)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _schedstat() -> Line:
    """Whether Linux tells how long a thread waited for a core; a kernel without sched_info writes `0 0 0`."""
    subject, remedy = "schedstat", "waiting for a core cannot be told from other waiting on this system"
    try:
        fields = _SCHEDSTAT.read_text(encoding="ascii").split()
    except OSError:
        return Line(subject, f"{_SCHEDSTAT} is not there", is_there=False, remedy=remedy)
    if not any(int(field) for field in fields):
        return Line(subject, "the kernel keeps no scheduling times", is_there=False, remedy=remedy)
    return Line(subject, "readable")


def _control_group() -> Line:
    """What the container or job scheduler grants: recording measures use against it."""
    group = ControlGroup()
    try:
        cores, memory = group.cpu_limit(), group.memory()
    except (OSError, ValueError) as error:
        remedy = "CPU and memory are then measured against the whole host"
        return Line("control group", f"cannot be read: {error}", is_there=False, remedy=remedy)
    finally:
        group.close()
    limits = [f"{cores:g} cores"] if cores is not None else []
    limits += [f"{memory[1] / _GIBIBYTE:.1f} GiB of memory"] if memory is not None else []
    return Line("control group", f"limited to {', '.join(limits)}" if limits else "no limit")


def _pressure() -> Line:
    """Whether Linux tells how long tasks stood still for want of a core (PSI)."""
    subject, remedy = "pressure", "a busy host is not told from a slow training: PSI needs Linux 4.20 and, on some, psi=1 at boot"
    try:
        _PRESSURE.read_text(encoding="ascii")
    except OSError as error:
        return Line(subject, f"{_PRESSURE} cannot be read: {error.strerror}", is_there=False, remedy=remedy)
    return Line(subject, "readable")


def _browser() -> Line:
    named = os.environ.get("PERFNB_CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)
    if found:
        return Line("Chromium", Path(found).name)
    return Line(
        "Chromium",
        "not found",
        is_there=False,
        remedy="only perfnb's own browser tests need it: install chromium, or set PERFNB_CHROMIUM",
    )
