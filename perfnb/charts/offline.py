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

    Parameters
    ----------
    folder
        Where it is kept; the user's cache folder by default. Where that cannot be read or written it is made anew.
    """
    place = (user_cache_path("perfnb", appauthor=False) if folder is None else folder) / _file_name()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        digest, _, kept = place.read_text(encoding="utf-8").partition("\n")
        if digest == _digest(kept):
            return kept
    made = _made()
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, f"{_digest(made)}\n{made}".encode())
    return made


def _made() -> str:
    was_offline = alt.JupyterChart._is_offline  # noqa: SLF001 - altair has no other way to ask
    alt.JupyterChart.enable_offline()
    script = str(alt.JupyterChart._esm)  # noqa: SLF001 - anywidget's name of a widget's script
    alt.JupyterChart.enable_offline(was_offline)
    return script


def _file_name() -> str:
    """One file per pair of versions that make the script."""
    return f"chart-altair-{version('altair')}-vl-convert-{version('vl-convert-python')}.txt"


def _digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()
