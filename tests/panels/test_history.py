"""The config behind a panel, and the one place that hands HTML to the browser."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from markupsafe import Markup

from perfnb.apply import apply, undo
from perfnb.panels.base import View
from perfnb.panels.history import History
from perfnb.prediction import Change

CHANGE = Change("num_workers", 0, 4)


def test_undo_without_an_apply_says_so() -> None:
    history = History({"num_workers": 0}, apply, undo)

    assert history.undo() == "nothing to take back"


def test_a_click_while_another_is_at_work_is_told_so() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(changes: Sequence[Change], config: Mapping[str, Any]) -> Mapping[str, Any]:
        entered.set()
        leave.wait(10)
        return apply(changes, config)

    history = History({"num_workers": 0}, slow, undo)
    first = threading.Thread(target=history.apply, args=([CHANGE],))
    first.start()
    entered.wait(10)

    told = history.apply([CHANGE])

    leave.set()
    first.join(10)
    assert told == "busy: the click before is still at work"
    assert history.config == {"num_workers": 4}
    assert len(history.applied) == 1


def test_a_view_takes_markup_only() -> None:
    with pytest.raises(TypeError, match="this is str: names in it would act as HTML"):
        View().show_html("<b>text</b>")


def test_what_changes_is_announced_to_screen_readers() -> None:
    view = View(is_status=True)

    view.show_html(Markup("text"))

    assert 'role="status" aria-live="polite"' in view.widget.value
