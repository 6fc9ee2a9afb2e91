"""A file written as one: a reader sees what was there before, or all of the new, at whatever moment the writer is stopped."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Put bytes into a file: they are written to a neighbour, which is renamed over it.

    Parameters
    ----------
    path
        The file; one that is there is replaced and its mode kept, and of a link the file behind it.
    content
        All of its bytes.

    Raises
    ------
    OSError
        If the system refuses; the file is as it was then, and nothing is left beside it.
    """
    target = path.resolve()
    descriptor, beside = tempfile.mkstemp(prefix=".perfnb-", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), _mode(target))
            os.fsync(file.fileno())
        Path(beside).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(beside).unlink()
        raise


def _mode(target: Path) -> int:
    """Mode of the file that is there, else that of a file made anew."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
