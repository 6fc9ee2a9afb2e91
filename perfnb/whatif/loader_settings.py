"""How a loader hands its batches over, beyond the number of its workers: the order, the pinning thread, a probe's batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from perfnb.config.mapping import has_knob, value_of

if TYPE_CHECKING:
    from perfnb.whatif.loader_probed import ProbedLoader

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class LoaderSettings:
    """The loader of a model, as the run had it and after the changes.

    Attributes
    ----------
    recorded_in_order, in_order
        Whether batches come in the order of their indices, in the run and after the changes.
    is_pinned
        Whether a thread of its own copies each batch into pinned memory after the changes.
    recorded_prefetch
        `prefetch_factor` of the run; None is torch's default.
    probe
        What a probe of the dataset told; None without one, or where no change needs it.
    scale
        Per rank, what the probe's batches are multiplied by so that their mean is the run's.
    """

    recorded_in_order: bool = True
    in_order: bool = True
    is_pinned: bool = False
    recorded_prefetch: int | None = None
    probe: ProbedLoader | None = None
    scale: Mapping[int, float] = field(default_factory=lambda: _NOTHING)

    @property
    def unchanged(self) -> LoaderSettings:
        """The same as the run had it."""
        return replace(self, in_order=self.recorded_in_order, is_pinned=False)

    def is_simulated(self, workers: int, recorded_workers: int) -> bool:
        """Whether its queue has to be simulated: other workers than in the run, or workers whose batches were probed."""
        return workers != recorded_workers or (workers > 0 and self.probe is not None)


def recorded_loader(config: Mapping[str, Any]) -> LoaderSettings:
    """The loader as a run's config and its probe say; the probe counts only once a change of the loader asks for it."""
    in_order = value_of(config, "in_order") if has_knob(config, "in_order") else True
    prefetch = value_of(config, "prefetch_factor") if has_knob(config, "prefetch_factor") else None
    return LoaderSettings(
        recorded_in_order=in_order is not False,
        in_order=in_order is not False,
        recorded_prefetch=prefetch if type(prefetch) is int and prefetch > 0 else None,
    )
