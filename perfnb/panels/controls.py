"""One control per knob: a slider, a checkbox or a list, with the value that the run was recorded with beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final

import ipywidgets as widgets

from perfnb import text
from perfnb.document import Line
from perfnb.errors import ConfigError
from perfnb.panels.base import View, button, row

# Stops of the sliders and entries of the lists: a choice of display. The config's value and suggested ones always join them.
OFFERED: Final = MappingProxyType(
    {
        "num_workers": (0, 1, 2, 3, 4, 6, 8, 12, 16),
        "prefetch_factor": (1, 2, 3, 4, 6, 8, 12, 16),
        "batch_size": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
        "gradient_accumulation_steps": (1, 2, 4, 8, 16, 32),
        "log_every_n_steps": (1, 2, 5, 10, 20, 50, 100, 200, 500),
        "checkpoint_every_n_steps": (100, 200, 500, 1000, 2000, 5000, 10000),
        "torch_num_threads": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
        "bucket_cap_mb": (1, 5, 10, 25, 50, 100, 200),
        "cache_samples": ("none", "memory", "disk"),
        "precision": ("fp32", "bf16", "fp16"),
        "matmul_precision": ("highest", "high", "medium"),
        "memory_format": ("contiguous", "channels_last"),
        "gradient_compression": ("none", "bf16", "fp16"),
        "optimizer_implementation": ("loop", "foreach", "fused"),
    }
)

_DESCRIPTION: Final = {"description_width": "190px"}
_LAYOUT: Final = {"width": "480px"}


class Control:
    """A knob on screen: its widget, the value that the run was recorded with, and a button that goes back to it.

    Parameters
    ----------
    knob
        Canonical name.
    recorded
        Its value in the run.
    further
        Values that must be among those offered: suggested ones.
    """

    def __init__(self, knob: str, recorded: Any, further: Sequence[Any] = ()) -> None:
        self.knob, self.recorded = knob, recorded
        self._values = _values(knob, recorded, further)
        self.widget = _widget(knob, recorded, self._values)
        self.reset_button = button("Reset", f"Back to {text.name(recorded)}")
        self.note = View()
        self.row = row(self.widget, self.reset_button, self.note.widget)
        self.reset_button.on_click(lambda _: self.reset())
        self._note()

    @property
    def value(self) -> Any:
        """What the control is set to; one that was not offered becomes one of those offered when it is set."""
        if isinstance(self.widget, widgets.Checkbox):
            return self.widget.value
        return self._values[self.widget.index] if self.can_change else self.recorded

    @value.setter
    def value(self, value: Any) -> None:
        if isinstance(self.widget, widgets.Checkbox):
            self.widget.value = value
            return
        if not self.can_change:
            message = f"{self.knob} cannot be changed here: it is {self.recorded!r}, and no other value is offered"
            raise ConfigError(message)
        if value not in self._values:
            self._offer(value)
        self.widget.index = self._values.index(value)

    @property
    def can_change(self) -> bool:
        """Whether there is more than one value to choose from."""
        return not isinstance(self.widget, widgets.Text)

    @property
    def is_changed(self) -> bool:
        """Whether it stands on another value than the run was recorded with."""
        return bool(self.value != self.recorded)

    def reset(self) -> None:
        """Back to the value that the run was recorded with."""
        if self.can_change:
            self.value = self.recorded

    def observe(self, moved: Callable[[Any], None]) -> None:
        """Call a function with the new value whenever it changes; one that was overtaken meanwhile is left out."""

        def changed(change: Any) -> None:
            if change["new"] == self.widget.value:
                self._note()
                moved(self.value)

        self.widget.observe(changed, names="value")

    def _offer(self, value: Any) -> None:
        """Put one more value among those offered; the one that is chosen stays chosen."""
        values = _values(self.knob, self.recorded, [*self._values, value])
        if value not in values:
            message = f"{self.knob} cannot be {value!r}: it is one of {', '.join(map(repr, self._values))}"
            raise ConfigError(message)
        chosen = values.index(self.value)
        # the numbers of the options move, which is no change of the value
        with self.widget.hold_trait_notifications():
            self._values = values
            self.widget.options = _options(values)
            self.widget.index = chosen

    def set_live(self, *, live: bool) -> None:
        """Whether a slider reports while it moves, or on release only."""
        if isinstance(self.widget, widgets.SelectionSlider):
            self.widget.continuous_update = live

    def _note(self) -> None:
        self.reset_button.disabled = not self.is_changed
        self.reset_button.layout.visibility = "visible" if self.is_changed else "hidden"
        self.note.show(Line("", f"was {text.name(self.recorded)}" if self.is_changed else ""))


def _widget(knob: str, recorded: Any, values: Sequence[Any]) -> widgets.DOMWidget:
    shared: dict[str, Any] = {"description": text.name(knob), "style": _DESCRIPTION, "layout": _LAYOUT}
    if isinstance(recorded, bool):
        return widgets.Checkbox(value=recorded, indent=True, **shared)
    if len(values) < 2:  # noqa: PLR2004 - one value is no choice
        return widgets.Text(value=text.name(recorded), disabled=True, **shared)
    kind = widgets.Dropdown if any(isinstance(value, str) for value in values) else widgets.SelectionSlider
    return kind(options=_options(values), index=list(values).index(recorded), **shared)


def _options(values: Sequence[Any]) -> list[tuple[str, int]]:
    """Words and number of each value: ipywidgets takes None for "nothing is chosen", so values themselves cannot stand here."""
    return [("not set" if value is None else text.name(value), number) for number, value in enumerate(values)]


def _values(knob: str, recorded: Any, further: Sequence[Any]) -> tuple[Any, ...]:
    """Values to choose from: of the recorded one's kind, numbers in order; nothing else where that is neither number nor text."""
    if isinstance(recorded, bool) or not isinstance(recorded, (int, float, str, type(None))):
        return (recorded,)
    offered = list(dict.fromkeys([*OFFERED.get(knob, ()), *further, recorded]))
    numbers = sorted(value for value in offered if isinstance(value, (int, float)) and not isinstance(value, bool))
    texts = [value for value in offered if isinstance(value, str)]
    if recorded is None:
        return (None, *(numbers or texts))
    return tuple(texts if isinstance(recorded, str) else numbers)
