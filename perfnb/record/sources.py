"""Where a step's batches came from: which of the loader's iterators it trained on, and which it evaluated on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Source:
    """What one iterator of a loader gave in one step."""

    samples: int | None = None
    is_unknown: bool = False  # a batch of unknown size was among them
    passes: int = 0
    is_forwarded: bool = False
    is_trained: bool = False
    is_evaluated: bool = False


class Sources:
    """The iterators of one step, told apart by a number each.

    Evaluation inside the training fetches batches too. What tells it is what the batch that was fetched last is used for: a
    forward pass without gradients, or one with them that no backward pass follows while others' do.

    Examples
    --------
    >>> sources = Sources()
    >>> sources.fetch(1), sources.load(1, 8), sources.use(trains=False), sources.fetch(2), sources.load(2, 4)
    (None, None, None, None, None)
    >>> sources.use(trains=True)
    >>> sources.close()
    (4, 0, frozenset({1}))
    """

    def __init__(self) -> None:
        self._known: dict[int | None, _Source] = {}
        self._last: int | None = None

    def fetch(self, number: int | None) -> None:
        """An iterator is asked for a batch."""
        self._last = number

    def load(self, number: int | None, samples: int | None) -> None:
        """It gave a batch of so many samples."""
        source = self._of(number)
        source.is_unknown |= samples is None
        source.samples = (source.samples or 0) + (samples or 0)

    def begin_pass(self, number: int | None) -> None:
        """It began a pass over the loader."""
        self._of(number).passes += 1

    def use(self, *, trains: bool) -> None:
        """The batch that was fetched last was trained on, or went through the model without gradients."""
        source = self._of(self._last)
        source.is_trained |= trains
        source.is_evaluated |= not trains

    def forward(self) -> None:
        """It went through the model with gradients: to train on, if a backward pass follows."""
        self._of(self._last).is_forwarded = True

    def close(self) -> tuple[int | None, int, frozenset[int | None]]:
        """End the step: samples that it trained on, passes that began for it, and the iterators that it evaluated on."""
        trains = any(each.is_trained for each in self._known.values())
        evaluated = frozenset(
            number
            for number, each in self._known.items()
            if not each.is_trained and (each.is_evaluated or (trains and each.is_forwarded))
        )
        trained = [each for number, each in self._known.items() if number not in evaluated]
        given = [each.samples for each in trained if each.samples is not None]
        is_known = given and not any(each.is_unknown for each in trained)
        passes = max((each.passes for each in trained), default=0)  # loaders that are read side by side begin together
        self._known = {}
        return sum(given) if is_known else None, passes, evaluated

    def _of(self, number: int | None) -> _Source:
        return self._known.setdefault(number, _Source())
