"""A neighbour of a file, with all that belongs to the file, renamed over it: a reader sees the old bytes or the new."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from perfnb.errors import ConfigFileError, StaleChange
from perfnb.safe_text import clean


def write_beside(target: Path, content: bytes, like: os.stat_result, path: Path, expected: bytes | None = None) -> None:
    """A file with these bytes, and with owner, mode and attributes of another: written beside and renamed.

    Parameters
    ----------
    target
        The file to be; there may be one.
    content
        Its bytes.
    like
        Whose owner and mode it gets.
    path
        The file that is spoken of where something goes wrong.
    expected
        What the target has to hold, looked at last thing before the renaming: only an editor that saves between the two is
        missed. None where there is none yet.

    Raises
    ------
    StaleChange
        If the target holds something else than was expected.
    ConfigFileError
        If the system refuses.
    """
    beside: str | None = None
    try:
        descriptor, beside = tempfile.mkstemp(prefix=".perfnb-", suffix=".tmp", dir=target.parent)
        with os.fdopen(descriptor, "wb") as file:
            _give_to_owner(file.fileno(), like, path)
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
            _copy_attributes(target, file.fileno())
            os.fsync(file.fileno())
        if expected is not None and target.read_bytes() != expected:
            raise StaleChange(edited(path))
        Path(beside).replace(target)
        beside = None
        _flush_folder(target.parent)
    except OSError as error:
        message = f"{said(path)} cannot be written: {reason(error)} ({said(target.name)} in its folder); it is as it was"
        raise ConfigFileError(message) from error
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):
                Path(beside).unlink()


def _give_to_owner(descriptor: int, like: os.stat_result, path: Path) -> None:
    new = os.fstat(descriptor)
    if (like.st_uid, like.st_gid) == (new.st_uid, new.st_gid):
        return
    try:
        os.fchown(descriptor, like.st_uid, like.st_gid)
    except PermissionError as error:
        message = f"{said(path)} belongs to another user or group, who would lose it when it is replaced: change it by hand"
        raise ConfigFileError(message) from error


def _copy_attributes(source: Path, descriptor: int) -> None:
    """Access lists and the like, where the file system has them; a file that is new has none."""
    with contextlib.suppress(OSError, AttributeError):
        for name in os.listxattr(source):
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(source, name))


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # the renaming is done: a file system that cannot flush folders is no failure
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def edited(path: Path) -> str:
    """The words for a file that was edited in between."""
    return f"{said(path)} was edited since it was read: nothing was written; look at the change once more"


def reason(error: Exception) -> str:
    """The system's words for what went wrong, safe to show."""
    return clean(getattr(error, "strerror", None) or error, 200)


def said(path: object) -> str:
    """A path, safe to show."""
    return clean(path, 200)
