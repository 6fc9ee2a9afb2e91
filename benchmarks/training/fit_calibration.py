"""Fits what perfnb/training ships as numbers: python -m benchmarks.training.fit_calibration [--write]."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from benchmarks.training.counts import as_json, left_out_scores, overfitting_count, score_features, too_high_counts, too_low_count
from benchmarks.training.data import BETTER, Floats, deepobs, folder
from benchmarks.training.fits import area_under_curve, calibration_error, logistic, score_weights, sigmoid
from benchmarks.training.pairs import GATE_Z, Pair, deepobs_pairs, small_pairs

PLACE: Final = Path(__file__).resolve().parents[2] / "perfnb" / "training"
BANDS: Final = (0.0, 0.2, 0.5, 0.8, 0.9, 1.0)
"""Edges of the probabilities for which the gain is told apart."""

_SURE: Final = 0.8
_MOMENTUM: Final = {
    "GradientDescentOptimizer": ("sgd", 0.0),
    "MomentumOptimizer": ("momentum", 0.99),
    "AdamOptimizer": ("adam", 0.0),
}
_SOURCES: Final = {
    "deepobs_meta.json": "DeepOBS baselines, MIT, fsschneider/DeepOBS_Baselines at 3da285ab",
    "deepobs.npz": "the same",
    "algoperf.jsonl.gz": "AlgoPerf submissions, Apache-2.0, mlcommons/submissions_algorithms at 12c8e4ea",
    "own_runs.jsonl.gz": "runs of 240 steps made for perfnb",
}


def fitted() -> dict[str, Any]:
    """Everything that calibration.json holds, from the corpus."""
    bar = tqdm(total=5, desc="calibration", unit="part")
    high = too_high_counts()
    bar.update()
    low = too_low_count()
    values, truth, _ = score_features()
    left_out = left_out_scores()
    bar.update()
    over, silent = overfitting_count()
    bar.update()
    probe = probe_fit()
    bar.update()
    near = np.array([run.is_near for run in deepobs()])
    told = {
        "version": 1,
        "made_by": "python -m benchmarks.training.fit_calibration --write",
        "split": "by problem or task: every count, score and error leaves the problem or task of its own run out",
        "data": {name: {"source": source, "sha256": _digest(name)} for name, source in _SOURCES.items()},
        "counts": {
            "non_finite_loss": as_json(
                high["non_finite_loss"],
                "the rate was too high",
                "648 DeepOBS runs, first tenth; rates within a decade of the best",
            ),
            "early_instability": as_json(
                high["early_instability"], "the rate was too high", "648 DeepOBS runs; rates within a decade of the best"
            ),
            "overfitting": {
                **as_json(over, "over 1 % of the drop was lost again by the end", "AlgoPerf trials with 12 evaluations or more"),
                "silent_hits": silent.hits,
                "silent_misses": silent.misses,
            },
            "learning_rate_too_low": as_json(
                low, "the rate was too low", "648 DeepOBS runs, first tenth; rates within a decade of the best"
            ),
        },
        "score": {
            **score_weights(values, truth),
            "auc": area_under_curve(left_out, truth > 0),
            "auc_near": area_under_curve(left_out[near], truth[near] > 0),
        },
        "probe": probe,
    }
    bar.update()
    bar.close()
    return told


def probe_fit() -> dict[str, Any]:
    """Platt's line on the signed root of the effect, tasks weigh the same; and how good it is on tasks left out."""
    pairs = deepobs_pairs() + small_pairs()
    task = np.array([pair.task for pair in pairs])
    slope, intercept = platt(pairs)
    chance = left_out_chance(pairs)
    gain = np.array([pair.gain for pair in pairs])
    better = gain > BETTER
    sure = (chance > _SURE) & (np.array([pair.z for pair in pairs]) < GATE_Z)
    weight = task_weights(pairs)
    place = np.clip(np.searchsorted(BANDS, chance, side="right") - 1, 0, len(BANDS) - 2)
    return {
        "slope": slope,
        "intercept": intercept,
        "feature": "sign(e) sqrt|e|; e: difference over the probe's last fifth as a share of the drop so far",
        "better_is": BETTER,
        "gate_z": GATE_Z,
        "pairs": len(pairs),
        "tasks": len(set(task)),
        "auc": area_under_curve(chance, better),
        "brier": float((weight * (chance - better) ** 2).sum() / weight.sum()),
        "calibration_error": calibration_error(chance, better, weight),
        "sure": {"count": int(sure.sum()), "right": int(better[sure].sum()), "harmful": int((gain[sure] < -BETTER).sum())},
        "gain_bands": [
            {
                "from": low,
                "to": high,
                "count": int((place == at).sum()),
                "gain": np.quantile(gain[place == at], (0.1, 0.5, 0.9)).tolist(),
            }
            for at, (low, high) in enumerate(pairwise(BANDS))
            if (place == at).any()
        ],
    }


def task_weights(pairs: tuple[Pair, ...]) -> Floats:
    """Weight of each pair: one over the pairs of its task."""
    count = Counter(pair.task for pair in pairs)
    return np.array([1.0 / count[pair.task] for pair in pairs])


def platt(pairs: tuple[Pair, ...]) -> tuple[float, float]:
    """Slope and intercept of the logit of "better" on the feature."""
    feature = np.array([[pair.feature] for pair in pairs])
    better = np.array([float(pair.gain > BETTER) for pair in pairs])
    slope, intercept = logistic(feature, better, task_weights(pairs))
    return float(slope), float(intercept)


def left_out_chance(pairs: tuple[Pair, ...]) -> Floats:
    """Probability of each pair by a line that was fitted without its task."""
    made = np.zeros(len(pairs))
    task = np.array([pair.task for pair in pairs])
    feature = np.array([pair.feature for pair in pairs])
    for name in sorted(set(task)):
        slope, intercept = platt(tuple(pair for pair in pairs if pair.task != name))
        made[task == name] = sigmoid(slope * feature[task == name] + intercept)
    return made


def rate_prior() -> dict[str, Any]:
    """Best rates of the sweep, as log10 of rate/(1 - momentum): median and range over problems, by optimizer."""
    best = {(run.problem, run.optimizer): run.best_log_rate for run in deepobs()}
    told = {}
    for optimizer, (name, momentum) in _MOMENTUM.items():
        rates = [rate - np.log10(1.0 - momentum) for (_, other), rate in sorted(best.items()) if other == optimizer]
        told[name] = {
            "median": float(np.median(rates)),
            "low": min(rates),
            "high": max(rates),
            "problems": len(rates),
            "momentum": momentum,
        }
    return {
        "version": 1,
        "made_by": "python -m benchmarks.training.fit_calibration --write",
        "unit": "log10 of learning rate / (1 - momentum); the conversion of momentum is a prior of its own",
        "holds_for": "small models trained from scratch",
        "data": {name: {"source": _SOURCES[name], "sha256": _digest(name)} for name in ("deepobs_meta.json", "deepobs.npz")},
        "optimizers": told,
    }


def _digest(name: str) -> str:
    return hashlib.sha256((folder() / name).read_bytes()).hexdigest()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


def main() -> None:
    """Print what was fitted, or write it into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the two files of perfnb/training")
    chosen = parser.parse_args()
    for name, told in (("calibration.json", fitted()), ("learning_rate_prior.json", rate_prior())):
        text = json.dumps(_rounded(told), indent=1) + "\n"
        if not chosen.write:
            print(f"{name}\n{text}")
            continue
        beside = PLACE / f"{name}.new"
        beside.write_text(text, encoding="utf-8")
        beside.replace(PLACE / name)


if __name__ == "__main__":
    main()
