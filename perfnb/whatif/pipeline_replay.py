"""Replay of a training in pipeline stages over all its ranks: what stragglers cost, and what equal work would take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfnb.whatif.pipeline_graph import Operation, Pipeline

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SLOWEST_SHARE: Final = 0.03
"""Share of the workers that count as the slowest: StragglerAnalysis, README, M_W."""


@dataclass(frozen=True, slots=True, eq=False)
class PipelineReplay:
    """A recorded training in stages, ready to be replayed with other lengths of its operations.

    Attributes
    ----------
    graph
        What waits for what.
    recorded_us
        Per operation, an array (steps, data-parallel ranks): how long it computed, or transferred once its partners were there.
    delays_us
        The same of how late each computing operation started once all that it needed was there; 0 of those that move data.
    ideal_us
        Of each kind, the length that its operations would have without stragglers: the mean of computing, the median transfer.
    steps, dp_ranks, stages
        What the axes are.
    recorded_step_us
        Duration of each step as it was recorded, from its first operation to the end of its last.
    """

    graph: Pipeline
    recorded_us: Mapping[Operation, Floats]
    delays_us: Mapping[Operation, Floats]
    ideal_us: Mapping[str, float]
    steps: tuple[int, ...]
    dp_ranks: tuple[int, ...]
    stages: tuple[int, ...]
    recorded_step_us: Floats

    def step_us(self, is_ideal: Callable[[Operation], bool | Bools] = lambda _each: False) -> Floats:
        """Duration of each step when some operations have their ideal length.

        Parameters
        ----------
        is_ideal
            Of an operation whether it has, as one answer or one for each data-parallel rank.
        """
        return self.graph.step_us({each: self._length(each, is_ideal(each)) for each in self.recorded_us})

    def delayed_step_us(self, lengths_us: Mapping[Operation, Floats] | None = None) -> Floats:
        """Duration of each step with the delays of the host, as recorded or with other lengths of some operations.

        Parameters
        ----------
        lengths_us
            Operations whose length changes; all others keep theirs.
        """
        return self.graph.step_us({**self.recorded_us, **(lengths_us or {})}, self.delays_us)

    @property
    def slowdown(self) -> float:
        """Mean replayed step over the mean step without any straggler."""
        return self._over_ideal(self.step_us())

    def slowdown_of(
        self,
        *,
        kinds: Collection[str] | None = None,
        stages: Collection[int] | None = None,
        dp_ranks: Collection[int] | None = None,
    ) -> float:
        """Slowdown if only some operations are as recorded, and all others ideal.

        Parameters
        ----------
        kinds, stages, dp_ranks
            Which ones: those in all that are given.
        """
        chosen = self._chosen(kinds, stages, dp_ranks)
        return self._over_ideal(self.step_us(lambda each: ~chosen(each)))

    def share_explained(
        self, *, stages: Collection[int] | None = None, workers: Collection[tuple[int, int]] | None = None
    ) -> float:
        """Share of what stragglers cost that goes once the operations of some stages, or of some workers, are ideal.

        Parameters
        ----------
        stages
            Stages.
        workers
            Pairs of data-parallel rank and stage.
        """
        ideal = self._chosen(None, stages, None)
        if workers is not None:
            by_stage = {
                stage: np.isin(self.dp_ranks, [rank for rank, other in workers if other == stage]) for stage in self.stages
            }
            ideal = lambda each: by_stage[each.stage]  # noqa: E731 - one of two functions
        now, best = self.step_us().mean(), self.step_us(lambda _each: True).mean()
        if now == best:
            return 0.0
        return float((now - self.step_us(ideal).mean()) / (now - best))

    def slowest_workers(self) -> tuple[tuple[int, int], ...]:
        """The slowest 3 % of the workers, at least one: pairs of data-parallel rank and stage.

        A worker is as slow as the smaller of the slowdowns of its rank and of its stage.
        """
        by_rank = {rank: self.slowdown_of(dp_ranks=[rank]) for rank in self.dp_ranks}
        by_stage = {stage: self.slowdown_of(stages=[stage]) for stage in self.stages}
        workers = [(rank, stage) for rank in self.dp_ranks for stage in self.stages]
        workers.sort(key=lambda worker: (-min(by_rank[worker[0]], by_stage[worker[1]]), worker))
        return tuple(workers[: max(round(SLOWEST_SHARE * len(workers)), 1)])

    def _chosen(
        self, kinds: Collection[str] | None, stages: Collection[int] | None, dp_ranks: Collection[int] | None
    ) -> Callable[[Operation], Bools]:
        ranks = np.isin(self.dp_ranks, list(self.dp_ranks if dp_ranks is None else dp_ranks))

        def is_chosen(each: Operation) -> Bools:
            is_in = (kinds is None or each.kind in kinds) and (stages is None or each.stage in stages)
            return ranks if is_in else np.zeros(len(ranks), dtype=bool)

        return is_chosen

    def _length(self, each: Operation, is_ideal: bool | Bools) -> Floats:  # noqa: FBT001 - an answer, not a switch
        return np.where(is_ideal, self.ideal_us[each.kind], self.recorded_us[each])

    def _over_ideal(self, step_us: Floats) -> float:
        return float(step_us.mean() / self.step_us(lambda _each: True).mean())
