"""Optimizers of other libraries as far as their memory goes: what they keep, without what they compute."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

EIGHT_BIT: Final = ("adam_8bit", "adamw_8bit")
"""Words of the knob optimizer for Adam and AdamW of bitsandbytes."""

EIGHT_BIT_NOTE: Final = (
    "the 8-bit optimizer's state is as bitsandbytes' source makes it, its step is taken to need nothing beside it: "
    "neither was measured"
)

_SMALLEST: Final = 4096
"""Elements from which on a parameter's state is kept in 8 bits: bitsandbytes/optim/optimizer.py, min_8bit_size."""

_BLOCK: Final = 256
"""Elements that share one scale: bitsandbytes/optim/optimizer.py, init_state; older versions shared it among 2,048."""

_CODES: Final = 256
"""Entries of the table that turns a code into a number; one for each of the two moments, shared by all parameters."""


def eight_bit_adam(parameters: Iterable[Any]) -> Any:
    """An optimizer that holds what bitsandbytes' 8-bit Adam and AdamW hold, and changes no weight.

    Two moments per parameter: of 4,096 elements and more a byte per element and a scale (4 bytes) per 256 of them, of less 4
    bytes per element.
    """
    import torch  # noqa: PLC0415 - analysis of files runs without it

    class EightBitAdam(torch.optim.Optimizer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(parameters, {"lr": 1e-3})
            self.codes: list[torch.Tensor] = []

        def step(self, closure: Any = None) -> None:  # noqa: ARG002 - torch's signature
            for group in self.param_groups:
                for one in group["params"]:
                    if one.grad is not None and not self.state[one]:
                        self.state[one] = self._state(one)

        def _state(self, one: torch.Tensor) -> dict[str, Any]:
            if one.numel() < _SMALLEST:
                return {f"state{moment}": torch.zeros_like(one, dtype=torch.float32) for moment in (1, 2)}
            if not self.codes:
                self.codes = [torch.zeros(_CODES, dtype=torch.float32) for _ in range(2)]
            scales = -(-one.numel() // _BLOCK)
            found: dict[str, Any] = {}
            for moment in (1, 2):
                found[f"state{moment}"] = torch.zeros_like(one, dtype=torch.uint8)
                found[f"absmax{moment}"] = torch.zeros(scales, dtype=torch.float32)
                found[f"qmap{moment}"] = self.codes[moment - 1]
            return found

    return EightBitAdam()
