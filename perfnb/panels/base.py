"""What every panel is made of: a widget tree beside a static face, and the one place that hands HTML to the browser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

import ipywidgets as widgets
from markupsafe import Markup

from perfnb.document import Block, Bundle, joined_html

WIDTH: Final = "960px"
LONGEST_LINE: Final = 300
"""Characters of a line that a name from outside may fill: some traces hold names of megabytes."""

_VIEW: Final = "application/vnd.jupyter.widget-view+json"
_STYLE: Final = "line-height:1.5;font-size:13px;color:var(--jp-ui-font-color1,inherit)"


class Panel(ABC):
    """A view on values: its controls change traits of widgets that stay, its static face shows the state at display."""

    root: widgets.Box

    @abstractmethod
    def snapshot(self) -> Bundle:
        """The present state as HTML, Markdown and plain text, each complete alone."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - what IPython passes
        """The static faces, and the widget where a kernel can serve it."""
        faces: dict[str, Any] = dict(self.snapshot().mimebundle())
        if _has_kernel(self.root):
            faces[_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": self.root.model_id}
        return faces

    def __str__(self) -> str:
        """The present state as plain text."""
        return self.snapshot().plain

    def __repr__(self) -> str:
        """The present state as plain text, for a terminal."""
        return str(self)


class View:
    """A place for blocks of a document; nothing but `Markup` reaches the browser."""

    def __init__(self, *, is_status: bool = False) -> None:
        self.widget = widgets.HTML(layout=widgets.Layout(margin="0 0 4px 0", max_width=WIDTH))
        self._role = Markup(' role="status" aria-live="polite"') if is_status else Markup("")

    def show(self, *blocks: Block) -> None:
        """Replace what is shown; nothing is sent where it stays the same."""
        self.show_html(joined_html(blocks))

    def show_html(self, markup: object) -> None:
        """Replace what is shown by markup.

        Raises
        ------
        TypeError
            If it is plain text, which was not escaped.
        """
        if not isinstance(markup, Markup):
            message = f"a view shows Markup, this is {type(markup).__name__}: names in it would act as HTML"
            raise TypeError(message)
        self.widget.value = str(Markup('<div style="{}"{}>{}</div>').format(_STYLE, self._role, markup))

    def set_visible(self, *, visible: bool) -> None:
        """Show or hide the place."""
        set_visible(self.widget, visible=visible)


def set_visible(widget: widgets.DOMWidget, *, visible: bool) -> None:
    """Show or hide a widget; it stays where it is."""
    widget.layout.display = None if visible else "none"


def button(text: str, tooltip: str, *, style: str = "") -> widgets.Button:
    """A button as wide as its words."""
    return widgets.Button(
        description=text,
        tooltip=tooltip,
        button_style=style,
        layout=widgets.Layout(width="auto", min_width="88px", align_self="flex-start"),
    )


def row(*children: widgets.Widget) -> widgets.HBox:
    """Widgets side by side, wrapped where the page is narrow."""
    layout = widgets.Layout(align_items="center", flex_flow="row wrap", grid_gap="4px", max_width=WIDTH)
    return widgets.HBox(children, layout=layout)


def column(*children: widgets.Widget) -> widgets.VBox:
    """Widgets one below the other."""
    return widgets.VBox(children, layout=widgets.Layout(max_width=WIDTH, padding="2px 0"))


def _has_kernel(widget: widgets.Widget) -> bool:
    """Whether a front end can reach the widget: outside a kernel ipywidgets has a comm that leads nowhere."""
    return widget.comm is not None and type(widget.comm).__module__.partition(".")[0] != "comm"
