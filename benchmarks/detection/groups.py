"""Control groups of a case's process: made below the root one where that is permitted, and removed after it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from benchmarks.detection.case import NotPermittedError

_GROUPS: Final = Path("/sys/fs/cgroup")
_CONTROLLERS: Final = ("cpu", "memory")


def own_group(controller: str) -> Path:
    """A new group for this process below the root one; where others put the process in a group, it is left there.

    Raises
    ------
    NotPermittedError
        If no group can be made.
    """
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    paths = {name: path for _, names, path in lines for name in names.split(",")}
    group = _name(_GROUPS / controller if controller in paths else _GROUPS, os.getpid())
    place = paths.get(controller, paths.get("", "?"))
    if place == f"/{group.name}":
        return group
    if place != "/":
        message = f"the process is in a {controller} group that others made, which is left alone"
        raise NotPermittedError(message)
    try:
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    except OSError as error:
        message = f"no {controller} group can be made here: {error.strerror}"
        raise NotPermittedError(message) from error
    return group


def remove_groups(process: int) -> None:
    """Remove the groups that a process made, once it has ended."""
    for root in (_GROUPS, *(_GROUPS / controller for controller in _CONTROLLERS)):
        with contextlib.suppress(OSError):
            _name(root, process).rmdir()


def setting(group: Path, *names: str) -> Path:
    """The first of these files that a group has.

    Raises
    ------
    NotPermittedError
        If it has none.
    """
    for name in names:
        if (group / name).exists():
            return group / name
    message = f"the group has none of {', '.join(names)}"
    raise NotPermittedError(message)


def _name(root: Path, process: int) -> Path:
    return root / f"perfnb-detection-{process}"
