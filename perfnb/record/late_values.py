"""Values that the training gave as tensors: read once they are there, never waited for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from perfnb.record.phases import Late

BACKWARD_LOSS = "backward_loss"
"""What `backward()` was called on: the loss as far as torch sees it; a step's micro-batches are added up."""


class Versioned(NamedTuple):
    """A tensor of a device, with the number of changes in place that it had when it was given."""

    tensor: Any
    version: int


class _Copy(NamedTuple):
    values: list[Late]
    numbers: Any
    done: Any


class LateValues:
    """Turns values into numbers.

    Tensors of the CPU are read at once. Those of a device are copied together, without blocking, by `start_copy` on the training
    thread, and read when the copy has arrived. What was changed in place meanwhile is lost, and counted.

    Attributes
    ----------
    lost
        Name of a value to why it could not be read, and how often.
    """

    def __init__(self) -> None:
        self.lost: dict[tuple[str, str], int] = {}
        self._waiting: list[Late] = []
        self._copies: list[_Copy] = []
        self._loss: Late | None = None  # of the step whose micro-batches are being added up

    @property
    def has_waiting(self) -> bool:
        """Whether values of a device wait to be copied."""
        return bool(self._waiting)

    def rows(self, values: Iterable[Late]) -> list[tuple[int, int, str, float]]:
        """Rows of the table `values` that are known by now: of these values, and of earlier ones whose copy arrived."""
        known = [row for copy in self._arrived() for row in self._read(copy.values, copy.numbers)]
        for value in values:
            kind = _device_of(value.value)
            if kind == "cuda":
                self._waiting.append(value)
            elif kind != "cpu":
                self._lose(value.name, f"values on {kind} are not read: nothing there copies without waiting")
            else:
                known += self._read([value], [value.value])
        return self._added_up(known)

    def rest(self) -> list[tuple[int, int, str, float]]:
        """What was held back to be added up; called when no more values come."""
        held, self._loss = self._loss, None
        return [] if held is None else [(held.step, held.time_ns, held.name, held.value)]

    def start_copy(self) -> None:
        """Copy what waits; called on the training thread, whose stream computed it. Nothing is waited for."""
        import torch  # noqa: PLC0415 - torch only where it is used

        waiting, self._waiting = self._waiting, []
        good = []
        for value in waiting:
            tensor, version = value.value if isinstance(value.value, Versioned) else (value.value, value.value._version)  # noqa: SLF001
            if tensor._version != version:  # noqa: SLF001 - torch's count of changes in place has no public name
                self._lose(value.name, "the tensor was changed in place before it was read")
            else:
                good.append((value, tensor))
        for device in {tensor.device for _, tensor in good}:
            own = [(value, tensor) for value, tensor in good if tensor.device == device]
            with torch.cuda.device(device):
                stacked = torch.stack([tensor.reshape(()).to(torch.float64) for _, tensor in own])
                numbers = torch.empty(len(own), dtype=torch.float64, pin_memory=True)
                numbers.copy_(stacked, non_blocking=True)
                done = torch.cuda.Event()
                done.record()
            self._copies.append(_Copy([value for value, _ in own], numbers, done))

    def wait(self) -> None:
        """Let all copies arrive: at the end of a recording."""
        for copy in self._copies:
            copy.done.synchronize()

    def _arrived(self) -> list[_Copy]:
        done = [copy for copy in self._copies if copy.done.query()]
        self._copies = [copy for copy in self._copies if copy not in done]
        return done

    def _read(self, values: list[Late], numbers: Any) -> list[tuple[int, int, str, float]]:
        rows = []
        for value, number in zip(values, numbers, strict=True):
            try:
                rows.append((value.step, value.time_ns, value.name, float(number)))
            except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
                self._lose(value.name, "it is no single number")
        return rows

    def _added_up(self, rows: list[tuple[int, int, str, float]]) -> list[tuple[int, int, str, float]]:
        out = []
        for row in rows:
            step, time_ns, name, number = row
            if name != BACKWARD_LOSS:
                out.append(row)
            elif self._loss is not None and self._loss.step == step:
                self._loss = Late(step, time_ns, name, self._loss.value + number)
            else:
                out += self.rest()
                self._loss = Late(step, time_ns, name, number)
        return out

    def _lose(self, name: str, reason: str) -> None:
        self.lost[name, reason] = self.lost.get((name, reason), 0) + 1


def as_given(value: Any) -> Any:
    """A value of the user's, kept as it is now: a number, a tensor of a device, else None where it is neither.

    Examples
    --------
    >>> as_given(3), as_given("three")
    (3.0, None)
    """
    if _device_of(value) != "cpu":
        return Versioned(value.detach(), value._version)  # noqa: SLF001 - see `LateValues.start_copy`
    try:
        return float(value.detach() if hasattr(value, "detach") else value)  # torch warns of a tensor that has a gradient
    except (TypeError, ValueError, RuntimeError):
        return None


def _device_of(value: Any) -> str:
    tensor = value.tensor if isinstance(value, Versioned) else value
    return str(getattr(getattr(tensor, "device", None), "type", "cpu"))
