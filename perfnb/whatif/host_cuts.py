"""Traces without some spans of host time: what a device job's step takes once a known pause of its host is gone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from perfnb.intervals import EMPTY, Intervals, joined
from perfnb.whatif.segments import Program, compile_timeline
from perfnb.whatif.timeline import Timeline
from perfnb.whatif.timeline_edits import Selector, remove

if TYPE_CHECKING:
    from perfnb.whatif.step_model import StepModel


def with_cuts(cuts: Mapping[int, Intervals], spans: Mapping[int, Intervals]) -> Mapping[int, Intervals]:
    """Spans of host time that go, with further ones; what both name goes once."""
    ranks = sorted({*cuts, *spans})
    return MappingProxyType({rank: joined(cuts.get(rank, EMPTY), spans.get(rank, EMPTY)) for rank in ranks})


def cut_programs(model: StepModel, *, without_logging: bool) -> Mapping[int, Program]:
    """The replay of each rank without the model's cuts; all of the ranks have a timeline.

    Parameters
    ----------
    model
        A model of traces that can be replayed.
    without_logging
        Whether the spans that are taken to be logging go too.
    """
    programs = {}
    for rank in model.measured.ranks:
        spans = model.cuts.get(rank.rank, EMPTY)
        if isinstance(rank.graph, Timeline):
            gone = joined(spans, rank.logging) if without_logging else spans
            programs[rank.rank] = compile_timeline(remove(rank.graph, Selector("host", within=gone)))
    return MappingProxyType(programs)
