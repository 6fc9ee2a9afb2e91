"""Panels as objects, without a kernel: a config, a model whose answers are easy to work out, and what a panel shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from typing import Any

import ipywidgets as widgets
import pandas as pd
import pytest

from perfnb.apply import apply, undo
from perfnb.panels.whatif import WhatIfPanel
from perfnb.prediction import Change, Prediction, Unknown

CONFIG = {"num_workers": 0, "prefetch_factor": None, "cache_samples": "none", "pin_memory": False, "seed": 7}
PARTS = pd.DataFrame(
    {"clock": "host", "part": ["data.wall", "forward.wall"], "time_us": [60_000.0, 40_000.0], "share": [0.6, 0.4]}
)


def model(after: Mapping[str, Any], draws: int) -> Prediction | Unknown:
    """A step of 100 ms that w workers make 40 ms + 60 ms / (w + 1); caching is unknown."""
    if "cache_samples" in after:
        return Unknown("it is not known <b>which</b> part is deterministic", "a probe of the loader")
    step = 40_000 + 60_000 / (after.get("num_workers", 0) + 1)
    return Prediction("step_us", 100_000, step, step * 0.9, step * 1.1, "prior", (f"{draws} draws",))


def _texts(widget: widgets.Widget) -> list[str]:
    own = [widget.value] if isinstance(widget, widgets.HTML) else []
    return own + [text for child in getattr(widget, "children", ()) for text in _texts(child)]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


@pytest.fixture
def shown() -> Callable[[Any], str]:
    """All HTML that a panel shows."""
    return lambda panel: "\n".join(_texts(panel.root))


@pytest.fixture
def tags() -> Callable[[str], list[tuple[str, tuple[str, ...]]]]:
    """Tags of HTML with the names of their attributes."""

    def found(html: str) -> list[tuple[str, tuple[str, ...]]]:
        parser = _Tags()
        parser.feed(html)
        return parser.found

    return found


@pytest.fixture
def config() -> dict[str, Any]:
    return dict(CONFIG)


@pytest.fixture
def opened() -> Callable[..., WhatIfPanel]:
    """Open a what-if panel on the config and model above, with some of its arguments changed."""

    def panel(**changed: Any) -> WhatIfPanel:
        values: dict[str, Any] = {
            "title": "rank0: 1 rank",
            "knobs": {knob: CONFIG[knob] for knob in ("num_workers", "prefetch_factor", "cache_samples", "pin_memory")},
            "config": CONFIG,
            "predict": model,
            "on_apply": apply,
            "on_undo": undo,
            "suggested": {"raise_num_workers: num_workers 0 -> 5": (Change("num_workers", 0, 5),)},
            "parts": PARTS,
        }
        return WhatIfPanel(**values | changed)

    return panel
