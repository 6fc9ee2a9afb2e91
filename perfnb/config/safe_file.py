"""A file read to the byte and replaced as one: a neighbour is written and renamed, so a reader sees the old bytes or the new."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from perfnb.config.neighbour import edited, reason, said, write_beside
from perfnb.errors import ConfigError, ConfigFileError, StaleChange

LARGEST_BYTES: Final = 16 << 20
"""A larger file is no config of a training."""

MOST_BACKUPS: Final = 20
"""Backups that are kept of one file; the oldest goes first."""

_PATIENCE_S: Final = 2.0
_BETWEEN_TRIES_S: Final = 0.02
_DIGITS: Final = 16
_LEFT_AFTER_S: Final = 3600.0
_NO_LOCKS_HERE: Final = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EISDIR)


def real_file(path: Path) -> Path:
    """The file itself, behind links.

    Raises
    ------
    ConfigError
        If there is none, or it is something else than a file.
    """
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except FileNotFoundError as error:
        link = f", a link to {said(path.readlink())}" if path.is_symlink() else ""
        message = f"there is no file {said(path)}{link}"
        raise ConfigError(message) from error
    except (OSError, RuntimeError, ValueError) as error:
        message = f"{said(path)} cannot be read: {reason(error)}"
        raise ConfigError(message) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
        message = f"{said(path)} is {kind}: name a JSON, YAML or TOML file"
        raise ConfigError(message)
    return real


def read_bytes(path: Path) -> bytes:
    """All bytes of a file.

    Raises
    ------
    ConfigError
        If it cannot be read, or is larger than `LARGEST_BYTES`.
    """
    real = real_file(path)
    try:
        with real.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        message = f"{said(path)} cannot be read: {reason(error)}"
        raise ConfigError(message) from error
    if len(content) > LARGEST_BYTES:
        message = f"{said(path)} is larger than {LARGEST_BYTES >> 20} MiB: that is no config of a training"
        raise ConfigError(message)
    return content


def replace_bytes(path: Path, expected: bytes, new: bytes) -> Path:
    """Put new bytes into a file that holds the expected ones, and keep those in a backup beside it.

    Parameters
    ----------
    path
        The file; where it is a link the file behind it is replaced and the link stays.
    expected
        What it held when the change was made up.
    new
        What it holds afterwards.

    Returns
    -------
    Path
        The backup.

    Raises
    ------
    StaleChange
        If the file holds something else by now.
    ConfigFileError
        If it cannot be written; it is as it was then.
    """
    real = real_file(path)
    with _locked(real):
        held = _checked(real, path, expected)
        backups = backups_of(real)
        number = 1 + max((_number(each) for each in backups), default=0)
        backup = real.with_name(f"{real.name}.perfnb-{number:04d}-{_digest(new)}.bak")
        write_beside(backup, expected, held, path)
        try:
            write_beside(real, new, held, path, expected)
        except BaseException:
            backup.unlink(missing_ok=True)
            raise
        for old in (*backups[: max(0, len(backups) + 1 - MOST_BACKUPS)], *_left_lying(real.parent)):
            old.unlink(missing_ok=True)
    return backup


def latest_backup(path: Path) -> bytes:
    """What the file held before the last change that is not taken back; the file is not touched.

    Raises
    ------
    ConfigError
        If there is no backup.
    StaleChange
        If the file was edited since that change.
    """
    real = real_file(path)
    return _backup_under(real, path, read_bytes(real))[1]


def restore_bytes(path: Path, expected: bytes) -> None:
    """Put back what the file held before the last change, and drop that backup.

    Raises
    ------
    ConfigError
        If there is no backup.
    StaleChange
        If the file holds something else than was expected, or was edited since that change.
    ConfigFileError
        If it cannot be written; it is as it was then.
    """
    real = real_file(path)
    with _locked(real):
        held = _checked(real, path, expected)
        backup, old = _backup_under(real, path, expected)
        write_beside(real, old, held, path, expected)
        backup.unlink(missing_ok=True)


def backups_of(path: Path) -> list[Path]:
    """Backups beside a file, the oldest first."""
    pattern = re.compile(re.escape(path.name) + rf"\.perfnb-\d{{4,}}-[0-9a-f]{{{_DIGITS}}}\.bak")
    return sorted((each for each in path.parent.iterdir() if pattern.fullmatch(each.name)), key=_number)


def _left_lying(folder: Path) -> list[Path]:
    """Neighbours that a process wrote and was killed before it could rename them."""
    pattern = re.compile(r"\.perfnb-[a-z0-9_]{8}\.tmp")
    oldest = time.time() - _LEFT_AFTER_S
    return [each for each in folder.iterdir() if pattern.fullmatch(each.name) and each.lstat().st_mtime < oldest]


def _backup_under(real: Path, path: Path, now: bytes) -> tuple[Path, bytes]:
    """The backup of the last change and its bytes; one whose change never came about or was undone is passed over."""
    for backup in reversed(backups_of(real)):
        old = read_bytes(backup)
        if old == now:
            continue
        if backup.name.endswith(f"-{_digest(now)}.bak"):
            return backup, old
        message = (
            f"{said(path)} was edited after the last change, so taking that back would lose the edit: "
            f"what it held before is in {said(backup.name)}"
        )
        raise StaleChange(message)
    message = f"there is nothing to take back in {said(path)}: no backup lies beside it"
    raise ConfigError(message)


def _checked(real: Path, path: Path, expected: bytes) -> os.stat_result:
    """What belongs to the file beside its bytes, after a look whether it may be replaced."""
    held = real.stat()
    if read_bytes(real) != expected:
        raise StaleChange(edited(path))
    if not held.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not os.access(real, os.W_OK):
        message = f"{said(path)} is read-only: allow writing (chmod u+w), or paste the change into the file that it is made from"
        raise ConfigFileError(message)
    if held.st_nlink > 1:
        message = f"{said(path)} has {held.st_nlink} names (hard links): replacing it would split them; change it by hand"
        raise ConfigFileError(message)
    return held


@contextlib.contextmanager
def _locked(real: Path) -> Iterator[None]:
    """Alone with the files of a folder, among processes that use perfnb; a process that dies lets go."""
    try:
        descriptor = os.open(real.parent, os.O_RDONLY)
    except OSError as error:
        message = f"the folder of {said(real)} cannot be opened: {reason(error)}"
        raise ConfigFileError(message) from error
    try:
        until = time.monotonic() + _PATIENCE_S
        while not _took_lock(descriptor):
            if time.monotonic() > until:
                message = f"{said(real)} is being changed by another process: nothing was written; try again"
                raise ConfigFileError(message)
            time.sleep(_BETWEEN_TRIES_S)
        yield
    finally:
        os.close(descriptor)


def _took_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS_HERE  # a network file system without locks: the check of the bytes remains
    return True


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _number(backup: Path) -> int:
    return int(backup.name.rsplit(".perfnb-", 1)[1].partition("-")[0])
