"""What a watched cell says when it has ended: its verdict card, or in words why there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from perfnb import text
from perfnb.diagnose import diagnose
from perfnb.document import Block, Bundle, Items, Line, Picture, Section, Verdict, bundle
from perfnb.findings import Diagnosis
from perfnb.fix import Suggestion
from perfnb.ledger import steady_steps
from perfnb.prediction import Unknown
from perfnb.record.recorder import NO_TORCH
from perfnb.report import card_blocks
from perfnb.run import Run
from perfnb.suggest import suggest
from perfnb.watched_cell import WatchedCell, host_lines, memory_lines, noise_of, unseen_lines, watched_line

__all__ = ["Judged", "WatchedCell", "judged", "noise_of", "unjudgeable"]

SHORTEST_S: Final = 1.0
FEWEST_STEPS: Final = 10
FEWEST_TRACED_STEPS: Final = 3
"""Below these a cell is too short to judge; a traced step tells more. Choices of display, from notebook.md."""

LARGEST_CARD_CHARACTERS: Final = 24_000
"""A stored card has at most 25 kB (notebook.md, section 13), and a notebook's JSON escapes some of its characters."""

_LISTED_STEPS: Final = 20
_FORWARDS: Final = re.compile(r"no optimizer step ended \((\d+) forward passes")  # as the recorder notes it
_QUIETER: Final = "a quieter host: run the cell again"


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What a watched cell came to.

    Attributes
    ----------
    diagnosis
        The answer of every detector.
    suggestions
        What to change, best first; without predictions where the host was too busy.
    card
        What to show.
    """

    diagnosis: Diagnosis
    suggestions: tuple[Suggestion, ...] = ()
    card: Bundle = field(default_factory=lambda: bundle(()))


def judged(cell: WatchedCell, config: Mapping[str, Any] | None = None) -> Judged:
    """Diagnosis, suggestions and card of a watched cell.

    Parameters
    ----------
    cell
        The cell.
    config
        The training's config; the run's own by default.

    Returns
    -------
    Judged
        A diagnosis in any case; where the cell was too short, or no step was seen, the card says so and suggests nothing.

    Examples
    --------
    >>> print(judged(WatchedCell(Run(), seconds=0.5, torch="not used")).card)
    perfnb  [?] No optimizer step ended here. Hand-written updates: call perfnb.step() once per iteration
    watched 0 steps in 0.5 s
    """
    diagnosis = diagnose(cell.run)
    short = unjudgeable(cell)
    if short:
        return Judged(diagnosis, card=bundle(_short_blocks(cell, short)))
    noise = noise_of(cell.run, cell.host_cores)
    suggestions = suggest(cell.run, config, diagnosis)
    if noise:
        suggestions = tuple(replace(each, prediction=Unknown(noise, _QUIETER), confidence=None) for each in suggestions)
    blocks: list[Block] = [*card_blocks(diagnosis, suggestions, _lines(cell, noise, suggestions))]
    if cell.error:
        before = text.count(len(cell.run.steps), "step")
        blocks.insert(0, Verdict("x", f"{_failed(cell)}. Diagnosis of the {before} before it:"))
    if cell.is_out_of_memory:
        blocks[1:1] = memory_lines(cell.run)
    return Judged(diagnosis, suggestions, _storable(blocks))


def unjudgeable(cell: WatchedCell) -> str:
    """Why a cell cannot be judged, as a sentence; empty where it can.

    Parameters
    ----------
    cell
        The cell.

    Returns
    -------
    str
        The reason in words.
    """
    if cell.run.steps.empty:
        return _no_step(cell)
    recorded, steady = len(cell.run.steps), len(steady_steps(cell.run))
    needed = FEWEST_TRACED_STEPS if _traced(cell.run) else FEWEST_STEPS
    if steady < needed:
        steps = text.count(recorded, "step") if recorded < needed else text.count(steady, "steady step")
        return f"Too short to judge: {steps}, {needed} needed"
    if cell.seconds < SHORTEST_S:
        return f"Too short to judge: {cell.seconds:.1f} s, {SHORTEST_S:.0f} s needed"
    return ""


def _no_step(cell: WatchedCell) -> str:
    if cell.other_process:
        return f"{cell.other_process} runs another process: not seen"
    if cell.torch == "imported late":
        return "torch was imported inside this cell: run the cell once more"
    forwards = next((found[1] for note in cell.run.notes if (found := _FORWARDS.search(note))), "")
    seen = f" ({forwards} forward passes seen)" if forwards else ""
    return f"No optimizer step ended here{seen}. Hand-written updates: call perfnb.step() once per iteration"


def _short_blocks(cell: WatchedCell, reason: str) -> list[Block]:
    blocks: list[Block] = [Verdict("?", reason)]
    if cell.error:
        nothing = "No optimizer step ended before it" if cell.run.steps.empty else reason
        blocks = [Verdict("x", f"{_failed(cell)}. {nothing}")]
    if cell.is_out_of_memory:
        blocks += memory_lines(cell.run)
    if len(cell.run.steps):
        durations = [text.duration(each) for each in cell.run.steps["duration_us"]]
        more = f" and {len(durations) - _LISTED_STEPS:,} more" if len(durations) > _LISTED_STEPS else ""
        blocks.append(Line("steps", f"{', '.join(durations[:_LISTED_STEPS])}{more}"))
    elif cell.torch == "not installed":
        blocks += host_lines(cell)
    blocks += unseen_lines(cell)
    blocks.append(watched_line(cell))
    notes = tuple(note for note in cell.run.notes if note != NO_TORCH and not _FORWARDS.search(note))  # said above
    if notes:
        blocks.append(Section(f"Notes ({len(notes)})", (Items(notes),)))
    return blocks


def _lines(cell: WatchedCell, noise: str, suggestions: Sequence[Suggestion]) -> Sequence[Line]:
    noisy = [Line("host", noise)] if noise else []
    memory = [] if cell.is_out_of_memory else memory_lines(cell.run)
    commands = ["%perfnb_whatif", "%perfnb_explore", *(["%perfnb_apply"] if suggestions else [])]
    return [*noisy, *memory, *unseen_lines(cell), Line("next", "    ".join(commands)), watched_line(cell)]


def _storable(blocks: Sequence[Block]) -> Bundle:
    """The card, without its charts where these would make the notebook's file too large; a table has their numbers."""
    card = bundle(blocks)
    if sum(map(len, card.mimebundle().values())) <= LARGEST_CARD_CHARACTERS:
        return card
    return bundle([block for block in blocks if not isinstance(block, Picture)])


def _failed(cell: WatchedCell) -> str:
    return f"Cell failed after {cell.seconds:.1f} s ({text.name(cell.error)})"


def _traced(run: Run) -> bool:
    return bool(run.steps["is_profiled"].any()) or "host_ops" in run.signals
