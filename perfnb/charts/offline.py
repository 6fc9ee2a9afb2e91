"""The script of a chart's widget with Vega's libraries in it, made once per machine."""

from __future__ import annotations

import contextlib
import hashlib
from importlib.metadata import version
from pathlib import Path

import altair as alt
from platformdirs import user_cache_path

from perfnb.whole_file import write_whole


def bundle(folder: Path | None = None) -> str:
    """The widget's script with Vega, Vega-Lite and vega-embed inlined, as altair and vl-convert make it.

    What is kept has a digest that shows damage; it is trusted as much as the packages that are installed beside it.

    Parameters
    ----------
    folder
        Where it is kept; the user's cache folder by default. Where that cannot be read or written it is made anew.
    """
    place = (user_cache_path("perfnb", appauthor=False) if folder is None else folder) / _file_name()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        digest, _, kept = (place.read_bytes() if place.is_file() else b"").partition(b"\n")
        if digest == _digest(kept):
            return kept.decode()
    made = _made()
    with contextlib.suppress(OSError, RuntimeError):  # the second of links that go in a circle
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, _digest(made.encode()) + b"\n" + made.encode())
    return made


def _made() -> str:
    class Offline(alt.JupyterChart):  # a class of its own: the charts of others in this kernel stay as they are
        _is_offline = False

    Offline.enable_offline()
    return str(Offline._esm)  # noqa: SLF001 - anywidget's name of a widget's script


def _file_name() -> str:
    """One file per pair of versions that make the script."""
    return f"chart-altair-{version('altair')}-vl-convert-{version('vl-convert-python')}.txt"


def _digest(script: bytes) -> bytes:
    return hashlib.sha256(script).hexdigest().encode()
