"""What every bootstrap draw needs of each step, worked out once per model and kept for as long as the model lives."""

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


def per_step(model: StepModel, what: str, rank: RankModel, values: Mapping[str, float], make: Callable[[], list[T]]) -> list[T]:
    """One entry per steady step of a rank; made where it is not kept.

    Parameters
    ----------
    model
        An edited model; each edit makes a new one, so that nothing that is kept goes out of date.
    what
        Name of what the entries are.
    rank
        The rank.
    values
        The model's estimates, on which the entries depend.
    make
        Makes the list.
    """
    kept, key = _kept.setdefault(model, {}), (what, rank.rank, *sorted(values.items()))
    if key not in kept:
        kept[key] = make()
    found: list[T] = kept[key]
    return found


def unchanged(model: StepModel) -> StepModel:
    """The model without its edits, the same one at each call."""
    found = _unchanged.get(model)
    if found is None:
        found = _unchanged[model] = model.unchanged
    return found
