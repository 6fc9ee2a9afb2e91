"""What a collective call takes by its size: fitted to the calls of a run, or measured by a probe of the link."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from perfnb.analyses.size_model import SizeModel, size_model
from perfnb.analyses.transfers import transfers
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.whatif.collective import ring_factor

FEWEST_SPAN: Final = 8.0  # whatif contract, section 6.2: largest over smallest size of a fit
PROBE: Final = "perfnb.probe_collectives() on every rank, and its answer given to perfnb.with_link_times"

Times = Callable[[float], float]
"""Microseconds of one call of so many bytes."""

_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"float": "float32", "half": "float16", "double": "float64", "bfloat16": "bfloat16", "c10::half": "float16"}
    | {"c10::bfloat16": "bfloat16"}
)


@dataclass(frozen=True, slots=True)
class Link:
    """Times of the collectives that a job may use instead of those that it does.

    Attributes
    ----------
    ranks, backend
        Of the group.
    dtype
        Of the gradients as they are exchanged now.
    recorded
        Of the job's own all-reduces; or why there is no such fit.
    constants
        What probes measured; see `constant_name`.
    """

    ranks: int
    backend: str
    dtype: str
    recorded: SizeModel | Unknown
    constants: Mapping[str, float]

    def probed(self, collective: str, dtype: str, backend: str | None = None) -> Times | Unknown:
        """Times of a collective as a probe measured them."""
        chosen = backend or self.backend
        alpha, rate = (
            self.constants.get(constant_name(chosen, collective, dtype, self.ranks, what))
            for what in ("alpha_us", "bytes_per_us")
        )
        if alpha is None or not rate:
            reason = f"no times of {collective} in {dtype} over {self.ranks} ranks with {chosen or 'this backend'} were measured"
            return Unknown(reason, PROBE)
        return _line(alpha, rate, ring_factor(collective, self.ranks))

    def all_reduce(self) -> Times | Unknown:
        """Times of the exchange as it is: from the job's own calls, else from a probe."""
        if isinstance(self.recorded, SizeModel):
            return _line(self.recorded.alpha_us, self.recorded.bytes_per_us, ring_factor("all_reduce", self.ranks))
        found = self.probed("all_reduce", self.dtype)
        return self.recorded if isinstance(found, Unknown) else found

    def cast_us(self, dtype: str) -> Times | Unknown:
        """Time of casting a bucket of float32 to another dtype and back, by its bytes in float32."""
        rate = self.constants.get(_cast_name(dtype))
        if not rate:
            return Unknown(f"what casting gradients to {dtype} and back takes was not measured", PROBE)
        return lambda size: size / rate


def constant_name(backend: str, collective: str, dtype: str, ranks: int, what: str) -> str:
    """Name in `Machine.constants` of a measured property of a collective: alpha_us, or bytes_per_us of bus bandwidth.

    Examples
    --------
    >>> constant_name("gloo", "all_reduce", "float16", 2, "alpha_us")
    'collective.gloo.all_reduce.float16.2.alpha_us'
    """
    return f"collective.{backend}.{collective}.{dtype}.{ranks}.{what}"


def with_link_times(run: Run, times: Iterable[Mapping[str, Any]]) -> Run:
    """The run with what a probe measured of its links, as constants of its machine.

    A kind of call whose times follow no line over its sizes is left out, and stays unknown.

    Parameters
    ----------
    run
        A run.
    times
        What `perfnb.probe_collectives` returned: backend, collective, dtype, ranks, bytes, time_us of
        each size.

    Returns
    -------
    Run
        A new one; the old one is unchanged.

    Examples
    --------
    >>> cast = {"backend": "gloo", "collective": "cast", "dtype": "float16", "ranks": 2, "bytes": 9000, "time_us": 10.0}
    >>> with_link_times(Run(), [cast]).machine.constants
    mappingproxy({'cast.float32.float16.bytes_per_us': 900.0})
    """
    constants = dict(run.machine.constants)
    kinds: dict[tuple[str, str, str, int], list[tuple[float, float]]] = {}
    for each in times:
        kind = (str(each["backend"]), str(each["collective"]), str(each["dtype"]), int(each["ranks"]))
        kinds.setdefault(kind, []).append((float(each["bytes"]), float(each["time_us"])))
    for (backend, collective, dtype, ranks), measured in kinds.items():
        size, time = (np.array(column, dtype=np.float64) for column in zip(*measured, strict=True))
        if collective == "cast":
            constants[_cast_name(dtype)] = float(size[-1] / time[-1])
            continue
        model = size_model(size * ring_factor(collective, ranks), time)
        if isinstance(model, SizeModel) and size.max() >= FEWEST_SPAN * size.min():
            for what, value in (("alpha_us", model.alpha_us), ("bytes_per_us", model.bytes_per_us)):
                constants[constant_name(backend, collective, dtype, ranks, what)] = value
    return replace(run, machine=replace(run.machine, constants=MappingProxyType(constants)))


def link_of(run: Run, backend: str) -> Link | Unknown:
    """The link that the gradients of a run cross, as far as it is known."""
    calls = run.collectives[run.collectives["collective"].eq("all_reduce")]
    sizes = calls["group_size"].dropna()
    ranks = int(sizes.max()) if len(sizes) else max(run.world_size or 0, len(run.ranks))
    if ranks < 2:  # noqa: PLR2004 - a rank alone exchanges nothing
        return Unknown("the job has one rank, which exchanges no gradients", "a run of several ranks")
    bytes_of = calls.groupby("dtype", observed=True)["bytes"].sum()
    told = str(bytes_of.idxmax()).lower() if len(bytes_of) else "float32"
    return Link(ranks, backend, _DTYPES.get(told, told), _fit(run), run.machine.constants)


def _cast_name(dtype: str) -> str:
    return f"cast.float32.{dtype}.bytes_per_us"


def _fit(run: Run) -> SizeModel | Unknown:
    needs = f"a run with a profiler's window, record(trace=5), whose buckets differ more in size; or {PROBE}"
    if run.collectives.empty:
        return Unknown(run.missing.get("collectives", "no collective was recorded"), needs)
    found = transfers(run)
    calls = found[found["collective"].eq("all_reduce") & found["call"].notna()]
    if calls.empty:
        return Unknown("no all-reduce was recorded on all ranks, so waiting for one another hides what a call takes", needs)
    size, time = calls["bus_bytes"].to_numpy(dtype="float64"), calls["transfer_us"].to_numpy(dtype="float64")
    if size.max() < FEWEST_SPAN * size.min():
        reason = (
            f"the largest all-reduce is {size.max() / size.min():.2g} times the smallest, {FEWEST_SPAN:g} are needed for a fit"
        )
        return Unknown(reason, needs)
    model = size_model(size, time)
    return Unknown(model, needs) if isinstance(model, str) else model


def _line(alpha_us: float, bytes_per_us: float, factor: float) -> Times:
    return lambda size: alpha_us + factor * size / bytes_per_us
