"""Names of the phases of a step: those that are shown, and those that only tell what time belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Phase = str | tuple[str, int]
"""A name; of data with the number of the loader's iterator."""

OTHER: Final = "other"
INFERENCE: Final = "inference"
"""Forward passes without gradients, and waiting for their batches: an evaluation, a teacher, samples that a policy draws."""

INFERENCE_DATA: Final = "inference data"
"""Phase in which a batch is waited for without gradients; shown as inference."""

OF_INFERENCE: Final = (INFERENCE, INFERENCE_DATA)

UNSPLIT: Final = "unsplit"
"""The rest of a step of which one of forward and backward was not seen: it holds that one."""

SCALED_STEP: Final = "scaled optimizer"
"""The optimizer phase that a gradient scaler opens round the optimizer's own; both are shown as optimizer."""

DATA: Final = "data"
"""Phase in which a batch is waited for. The hooks open it as a pair with the number of the loader's iterator."""

AFTER_FORWARD: Final = "after forward"
"""Time since a forward pass, as long as it is not known whether it is for the loss: that is where backward() comes next."""

BY_HOOKS: Final = (DATA, "forward", "backward", "optimizer", *OF_INFERENCE)
"""Phases that hooks open and close; others are the user's own."""

SHOWN_AS: Final[Mapping[Phase, str]] = {SCALED_STEP: "optimizer", INFERENCE_DATA: INFERENCE}
