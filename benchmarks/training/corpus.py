"""Quality of diagnoses and suggestions of training trouble on the corpus: python -m benchmarks.training.corpus [part ...]."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from benchmarks.training import alarms, policy
from benchmarks.training.data import BETTER, MUCH, deepobs
from benchmarks.training.fit_calibration import left_out_chance, platt, task_weights
from benchmarks.training.fits import area_under_curve, calibration_error, over_problems, sigmoid
from benchmarks.training.pairs import GATE_Z, Pair, deepobs_pairs, mid_run, small_pairs

_SURE: Final = 0.8
_SHORT: Final = ((0.01, 0.05), (0.02, 0.1), (0.02, 0.15), (0.02, 0.25))


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table with aligned columns."""
    cells = [list(header), *([f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def detection() -> None:
    """False alarms and what is found."""
    header = ("population", "detector", "fires", "of", "could not look", "share", "at most (90 %)")
    for title, rows in (("Healthy runs", alarms.healthy()), ("Other runs", alarms.others())):
        told = [(*row, row.fired / row.asked if row.asked else float("nan"), row.high) for row in rows]
        table(f"{title}: runs on which a detector fires", header, told)
    table(
        "The fixed rule on the same healthy runs, in windows of 5 points",
        ("population", "windows that fire", "windows", "runs", "of"),
        alarms.fixed_rule_windows(),
    )
    print("\nLosses that are not finite: {} of {} runs named".format(*alarms.named_divergences()))
    print("Overfitting answered by a lower rate: {} of {} runs".format(*alarms.rate_cuts_for_overfitting()))
    table(
        "loss_plateau on finite DeepOBS runs: no more than 1 % of the drop came after",
        ("at", "runs", "so", "fires", "fires that are right"),
        alarms.plateaus(),
    )


def symptoms() -> None:
    """What the first tenth shows, and whether the rate was what it says; per problem, its own problem left out of every fit."""
    counts: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    wanted = {"non_finite_loss": "too high", "early_instability": "too high", "learning_rate_too_low": "too low"}
    for run in deepobs():
        symptom = policy.first_symptom(run)
        if symptom:
            for problem in (run.problem, "all"):
                cell = counts[symptom, problem, "near" if run.is_near else "far"]
                cell[0] += run.truth == wanted[symptom]
                cell[1] += 1
    rows = [(*key, *cell) for key, cell in sorted(counts.items())]
    table("First tenth of DeepOBS: is the rate what the symptom says", ("symptom", "problem", "rates", "right", "fires"), rows)


def pairs() -> None:
    """The probe's probability, on pairs of tasks that its line was not fitted on."""
    whole = deepobs_pairs() + small_pairs()
    lines = {task: platt(tuple(pair for pair in whole if pair.task != task)) for task in sorted({pair.task for pair in whole})}
    sets: dict[str, tuple[Pair, ...]] = {f"DeepOBS {share:.0%}": deepobs_pairs(share) for share in (0.02, 0.05, 0.1, 0.25)}
    sets |= {f"small, mid-run, {steps} steps ({steps / 240:.0%})": small_pairs(steps) for steps in (12, 20, 40)}
    rows = [_pair_row(name, told, lines) for name, told in sets.items()]
    rows.append(_pair_row("fit set", whole, lines))
    table(
        "Paired branches: P(better by 0.01), task left out; sure: P > 0.8 and z < -2",
        ("pairs", "n", "AUC", "Brier", "base", "ECE", "sure", "right", "harmful", "sure near", "right", "harmful"),
        rows,
    )
    _mid_run(lines)
    chance, gain = left_out_chance(whole), np.array([pair.gain for pair in whole])
    errors = _per_task(whole, chance, gain > BETTER)
    print(
        "  ECE of the fit set, tasks weigh the same; by task: "
        + ", ".join(f"{name} {error:.2f}" for name, error in errors.items())
    )


def _pair_row(name: str, told: tuple[Pair, ...], lines: dict[str, tuple[float, float]]) -> tuple[object, ...]:
    chance = np.array([float(sigmoid(np.array(lines[p.task][0] * p.feature + lines[p.task][1]))) for p in told])
    gain, z = np.array([p.gain for p in told]), np.array([p.z for p in told])
    better, near = gain > BETTER, np.array([p.is_near for p in told])
    weight = task_weights(told)
    base = float((weight * better).sum() / weight.sum())
    row: list[object] = [name, len(told), area_under_curve(chance, better)]
    row += [float((weight * (chance - better) ** 2).sum() / weight.sum()), base * (1.0 - base)]
    row.append(calibration_error(chance, better, weight))
    for chosen in ((chance > _SURE) & (z < GATE_Z), (chance > _SURE) & (z < GATE_Z) & near):
        row += [int(chosen.sum()), *(float(x[chosen].mean()) if chosen.any() else float("nan") for x in (better, gain < -BETTER))]
    return tuple(row)


def _mid_run(lines: dict[str, tuple[float, float]]) -> None:
    """The small runs, each probed at a third of its length."""

    def chance_of(task: str, feature: float) -> float:
        slope, intercept = lines[task]
        return float(sigmoid(np.array(slope * feature + intercept)))

    rows = []
    for steps in (12, 20, 40):
        told = np.array(mid_run(chance_of, steps))
        for is_near in (True, False):
            _, before, after, least = told[told[:, 0] == is_near].T
            worse, much = (float((after - before > size).mean()) for size in (BETTER, MUCH))
            words = "near" if is_near else "far"
            rows.append(
                (
                    f"{steps} steps ({steps / 240:.0%})",
                    words,
                    len(before),
                    *(float(each.mean()) for each in (before, after, least)),
                    worse,
                    much,
                )
            )
    header = ("probe", "starts", "n", "regret before", "after", "best branch", "worse", "much worse")
    table("Small runs probed once mid-run, task left out of the line", header, rows)


def _per_task(told: tuple[Pair, ...], chance: np.ndarray, better: np.ndarray) -> dict[str, float]:
    task = np.array([pair.task for pair in told])
    return {name: calibration_error(chance[task == name], better[task == name]) for name in sorted(set(task))}


def policies() -> None:
    """The ladder of training.md 9, each run of the sweep a start; baselines beside it."""
    made: list[tuple[str, list[policy.Outcome]]] = [
        ("nothing", policy.replay(policy.nothing)),
        ("fixed rule (x0.4)", policy.replay(policy.fixed_rule)),
        ("random one of the five", policy.random_moves()),
        ("jump to the others' median", policy.replay(policy.others_median)),
        ("curve alone, no probe", policy.replay(policy.passive)),
        ("ladder 2 % then 10 %, no prior", policy.replay(policy.ladder(0.02, 0.1, with_prior=False))),
    ]
    for short, long in _SHORT:
        made.append(
            (f"checked prior, ladder {short:.0%} then {long:.0%}", policy.replay(policy.ladder(short, long, with_prior=True)))
        )
    header = ("policy", "starts", "regret", "80 % low", "high", "worse", "much worse", "cost in runs")
    for is_near in (True, False):
        rows = [_policy_row(name, [each for each in told if each.run.is_near == is_near]) for name, told in made]
        table(f"Policies on DeepOBS, {'near' if is_near else 'far'} starts; intervals over problems", header, rows)
    chosen = made[-3][1]
    problems = sorted({each.run.problem for each in chosen})
    for is_near in (True, False):
        rows = [_policy_row(name, [x for x in chosen if x.run.problem == name and x.run.is_near == is_near]) for name in problems]
        table(f"{made[-3][0]}, by problem, {'near' if is_near else 'far'} starts", header, rows)


def _policy_row(name: str, told: list[policy.Outcome]) -> tuple[object, ...]:
    groups: dict[str, list[float]] = defaultdict(list)
    for each in told:
        groups[each.run.problem].append(each.regret)
    means = [float(np.mean([getattr(each, field) for each in told])) for field in ("worse", "much_worse", "cost")]
    return name, len(told), *over_problems(dict(groups)), *means


PARTS: Final[dict[str, Callable[[], None]]] = {"policies": policies, "pairs": pairs, "symptoms": symptoms, "detection": detection}


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="all of them by default")
    for part in parser.parse_args().part or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
