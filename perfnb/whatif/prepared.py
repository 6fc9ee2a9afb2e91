"""What is the same in every bootstrap draw, worked out once per model and kept for as long as the model lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel
    from perfnb.whatif.rank_model import RankModel

T = TypeVar("T")

_kept: WeakKeyDictionary[StepModel, dict[tuple[Any, ...], Any]] = WeakKeyDictionary()
_unchanged: WeakKeyDictionary[StepModel, StepModel] = WeakKeyDictionary()


def prepared(model: StepModel, what: str, rank: RankModel, values: Mapping[str, float], make: Callable[[], T]) -> T:
    """What does not depend on which steps are drawn; made where it is not kept.

    Parameters
    ----------
    model
        An edited model; each edit makes a new one, so that nothing that is kept goes out of date.
    what
        Name of what is kept.
    rank
        The rank.
    values
        Those of the model's estimates on which it may depend.
    make
        Makes it.
    """
    kept, key = _kept.setdefault(model, {}), (what, rank.rank, *sorted(values.items()))
    if key not in kept:
        kept[key] = make()
    found: T = kept[key]
    return found


def unchanged(model: StepModel) -> StepModel:
    """The model without its edits, the same one at each call."""
    found = _unchanged.get(model)
    if found is None:
        found = _unchanged[model] = model.unchanged
    return found
