"""How a loader makes its batches and hands them over, beyond the number of its workers: order, pinning thread, probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from perfnb.config.mapping import has_knob, value_of

if TYPE_CHECKING:
    from perfnb.whatif.loader_probed import ProbedLoader

DEFAULT_PREFETCH: Final = 2  # torch.utils.data.DataLoader: prefetch_factor is 2 by default where num_workers > 0

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class LoaderSettings:
    """The loader of a model, as the run had it and after the changes.

    Attributes
    ----------
    recorded_in_order, in_order
        Whether batches come in the order of their indices, in the run and after the changes.
    recorded_prefetch, prefetch
        `prefetch_factor` in the run and after the changes; None is torch's default.
    recorded_persistent
        Whether workers outlived an epoch in the run.
    starts_per_step
        Share of the steady steps that begin an epoch.
    is_pinned
        Whether the changes add a thread that copies each batch into pinned memory.
    probe
        What a probe of the dataset told; None without one, or where no change asks for it.
    moved
        A probe of the same dataset as it is after the changes, read from another place; None where it stays.
    scale
        Per rank, what the probe's batches are multiplied by so that their mean is the run's.
    micro_batches
        Batches of a step whose loading the run holds as one sum.
    foreign
        Threads of others that ran on this rank's cores all the time.
    """

    recorded_in_order: bool = True
    in_order: bool = True
    recorded_prefetch: int | None = None
    prefetch: int | None = None
    recorded_persistent: bool = False
    starts_per_step: float = 0.0
    is_pinned: bool = False
    probe: ProbedLoader | None = None
    moved: ProbedLoader | None = None
    scale: Mapping[int, float] = field(default_factory=lambda: _NOTHING)
    micro_batches: int = 1
    foreign: float = 0.0

    @property
    def unchanged(self) -> LoaderSettings:
        """The same as the run had it."""
        return replace(self, in_order=self.recorded_in_order, prefetch=self.recorded_prefetch, is_pinned=False, moved=None)

    @property
    def costs(self) -> Mapping[str, float]:
        """What a worker costs, as a probe found it: `get_us`, `put_us`, `fork_us`, ...; empty without a probe."""
        probe = self.probe or self.moved
        return _NOTHING if probe is None else probe.constants

    def is_simulated(self, workers: int, recorded_workers: int) -> bool:
        """Whether its queue has to be simulated: other workers or another place than in the run, or workers that were probed."""
        return workers != recorded_workers or self.moved is not None or (workers > 0 and self.probe is not None)


def recorded_loader(config: Mapping[str, Any]) -> LoaderSettings:
    """The loader as a run's config says."""
    in_order = value_of(config, "in_order") if has_knob(config, "in_order") else True
    prefetch = value_of(config, "prefetch_factor") if has_knob(config, "prefetch_factor") else None
    prefetch = prefetch if type(prefetch) is int and prefetch > 0 else None
    is_ordered = in_order is not False
    persistent = bool(value_of(config, "persistent_workers")) if has_knob(config, "persistent_workers") else False
    return LoaderSettings(is_ordered, is_ordered, recorded_prefetch=prefetch, prefetch=prefetch, recorded_persistent=persistent)
