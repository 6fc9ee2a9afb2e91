"""The config behind a panel: applying changes to it and taking them back, one click at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from perfnb import text
from perfnb.apply import Preview, preview
from perfnb.config.as_config import as_config
from perfnb.config.file_home import FileHome
from perfnb.config.home import Home
from perfnb.document import Block, Diff, Line, Verdict
from perfnb.errors import NoPlaceError, PerfnbError
from perfnb.panels.diff import diff_block, shortened
from perfnb.prediction import Change

Config = Any
"""Any home of a config, as in `perfnb.as_config`."""

Edit = Callable[[Sequence[Change], Config], Config]
"""Makes a new config from changes and a config; raises `PerfnbError` where it cannot."""

_BUSY: Final = "busy: the click before is still at work"


class History:
    """A config and the changes that were applied to it.

    A file is written on the second click only: the first one shows what it would hold.

    Parameters
    ----------
    config
        The config to start from, any home of one; it is never modified, a file is replaced as one.
    on_apply, on_undo
        Make the new config, and put it where it lives.
    """

    def __init__(self, config: Config, on_apply: Edit, on_undo: Edit) -> None:
        self.home: Home = as_config(config)
        self.started_from = self.home
        self.applied: tuple[tuple[Change, ...], ...] = ()
        self._on_apply, self._on_undo = on_apply, on_undo
        self._lock = threading.Lock()
        self._shown: Preview | None = None
        self._code: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The config with what was applied, of the make of the given one; of a file its home."""
        return self.home if isinstance(self.home, FileHome) else self.home.value

    def file_to_write(self, changes: Sequence[Change]) -> str:
        """Name of the file that the next click writes these changes to, once it was shown; else empty."""
        is_shown = self._shown is not None and self._shown.changes == tuple(changes) and bool(changes)
        return self.home.path.name if is_shown and isinstance(self.home, FileHome) else ""

    def forget_look(self, changes: Sequence[Change]) -> bool:
        """Forget what was shown of a file where the changes are others by now; whether there was something to forget."""
        is_stale = self._shown is not None and self._shown.changes != tuple(changes)
        self._shown = None if is_stale else self._shown
        return is_stale

    def click(self, changes: Sequence[Change], done: str, home: str) -> tuple[tuple[Block, ...], bool]:
        """What a click on Apply comes to.

        Parameters
        ----------
        changes
            What to apply.
        done
            What to say once it is.
        home
            What to do with the new config.

        Returns
        -------
        tuple
            Blocks to show, and whether the changes are in effect.
        """
        if isinstance(self.home, FileHome) and not self.file_to_write(changes):
            return self._look(tuple(changes)), False
        error = self.apply(changes)
        return self._said(error, done, home), not error

    def apply(self, changes: Sequence[Change]) -> str:
        """Apply changes as one step; what went wrong in words, or nothing."""
        return self._edited(self._on_apply, tuple(changes), (*self.applied, tuple(changes)))

    def click_undo(self, done: str, home: str) -> tuple[tuple[Block, ...], bool]:
        """What a click on Undo comes to; see `click`."""
        error = self.undo()
        return self._said(error, done, home), not error

    def undo(self) -> str:
        """Take the latest step back; what went wrong in words, or nothing."""
        if not self.applied:
            return "nothing to take back"
        return self._edited(self._on_undo, self.applied[-1], self.applied[:-1])

    def _look(self, changes: tuple[Change, ...]) -> tuple[Block, ...]:
        """The diff of a file as it is now: it may have been edited since the panel was opened."""
        assert isinstance(self.home, FileHome)  # noqa: S101 - `click` asks for a look at files only
        name = text.name(self.home.path.name)
        try:
            now = as_config(self.home.path)
            shown = preview(changes, now)
        except (PerfnbError, OSError) as error:
            return (Verdict("x", text.clean(error, 400)),)
        if shown.reason:
            return (Verdict("x", shown.reason), *(Diff(tuple(code.split("\n"))) for code in shown.snippets))
        if not self.applied:
            self.started_from = now
        self.home, self._shown = now, shown
        return (Line("", f"Not written yet. {name} would change as follows; a backup is kept beside it:"), _lines_of(shown.diff))

    def _edited(self, edit: Edit, changes: tuple[Change, ...], applied: tuple[tuple[Change, ...], ...]) -> str:
        if not self._lock.acquire(blocking=False):
            return _BUSY
        self._shown, self._code = None, ()
        try:
            self.home = as_config(edit(changes, self.config))
        except NoPlaceError as error:
            self._code = error.snippets
            return error.message
        except (PerfnbError, OSError) as error:
            return str(error)
        else:
            self.applied = applied
            return ""
        finally:
            self._lock.release()

    def _said(self, error: str, done: str, home: str) -> tuple[Block, ...]:
        """What a click did, what to do with the new config and how it differs from the first; or why it did nothing."""
        if error:
            return (Verdict("x", text.clean(error, 600)), *(Diff(tuple(code.split("\n"))) for code in self._code))
        is_file = isinstance(self.home, FileHome)
        home = home or ("" if is_file else "The panel's .config is the new one, the old one stays as it is")
        backup = self.home.backup if isinstance(self.home, FileHome) else None
        kept = f"What it held lies in {text.name(backup.name)}." if backup is not None else ""
        return (Line("", " ".join(part for part in (f"{done}.", home, kept) if part)), diff_block(self.started_from, self.home))


def _lines_of(diff: str) -> Diff:
    return shortened(line.removesuffix("\r") for line in diff.removesuffix("\n").split("\n")) if diff else Diff(())
