"""Hooks on a user's model: the model can be copied and saved while it is watched, and what comes of that is not watched."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from perfnb.record.hooks import Watch  # noqa: E402 - torch decides whether there is anything to test
from perfnb.record.marks import Code, Marks  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def watched() -> Any:
    """Marks of a watch, and a model that carries its hooks."""
    marks = Marks()
    watch = Watch(marks, lambda: None)
    watch.install()
    model = torch.nn.Linear(4, 1)
    model(torch.zeros(2, 4)).sum().backward()
    watch.modules.settle()
    marks.taken()
    yield marks, model
    watch.remove()
    marks.close()


def _forwards(marks: Marks) -> int:
    return sum(mark[:2] == (Code.ENTER, "forward") for mark in marks.taken())


def test_a_watched_model_can_be_copied_and_its_copy_is_not_watched(watched: Any) -> None:
    marks, model = watched

    twin = copy.deepcopy(model)
    outputs = twin(torch.ones(2, 4))

    assert torch.equal(outputs, model(torch.ones(2, 4)))
    assert _forwards(marks) == 1


def test_a_watched_model_can_be_saved_and_what_is_saved_does_not_need_us(watched: Any) -> None:
    marks, model = watched
    file = io.BytesIO()

    torch.save(model, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    read = torch.load(file, weights_only=False)

    assert torch.equal(read(torch.ones(2, 4)), model(torch.ones(2, 4)))
    assert _forwards(marks) == 1
    assert b"perfnb" not in file.getvalue()
