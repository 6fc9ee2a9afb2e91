"""Predicts stored pairs anew with the models as they are now, from the same runs before: what a change of a model would do.

For pairs of development. The scored set counts as it was hashed; models that were changed after looking at it start at n = 0.
"""

from __future__ import annotations

from typing import Any

from benchmarks.prediction.stored import StoredPair
from perfnb.prediction import Prediction
from perfnb.whatif.step_model import predict, shadow

DRAWS = 40


def predicted_again(pair: StoredPair) -> StoredPair:
    """The pair with what the models say now; what was found stays."""
    changes, config = dict(pair.case.changes), dict(pair.config)
    answer = predict(pair.run, changes, config, metric="step_us", draws=DRAWS)
    row: dict[str, Any] = dict(pair.row)
    if isinstance(answer, Prediction):
        row |= {name: getattr(answer, name) for name in ("before", "after", "low", "high", "basis", "model", "spread")}
        row |= {"refused": "", "simulated": answer.simulated or answer.after, "assumptions": "; ".join(answer.assumptions)}
        row["inside"] = None if row["actual"] is None else answer.low <= row["actual"] <= answer.high
        moved = row["actual"] - row["actual_before"]
        row["sign_ok"] = None if abs(moved) <= 0.02 * row["actual_before"] else (answer.after > answer.before) == (moved > 0)
        needs = ""
    else:
        said = shadow(pair.run, changes, config, metric="step_us", draws=DRAWS)
        row |= dict.fromkeys(("before", "after", "low", "high", "simulated", "spread"))
        row |= {"refused": answer.reason, "shadow_after": said.after if isinstance(said, Prediction) else None}
        row |= {"inside": None, "sign_ok": None}
        needs = answer.needs
    return StoredPair(pair.case, {**pair.told, "row": row, "needs": needs})
