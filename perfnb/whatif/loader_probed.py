"""What a probe of the dataset tells the models: batches in their order, and what a worker costs beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.prediction import Unknown
from perfnb.record.loader_probe_quiet import Load
from perfnb.record.loader_probe_result import PREFIX, PROBE
from perfnb.run import Run
from perfnb.whatif.uncertainty import Estimate

LEAST_LIKE: Final = 0.9
LARGEST_LIKE: Final = 1.1
"""Mean batch of the run over that of the probe, whatif contract, section 4.3; outside, an interval is as much wider."""

LEAST_RATIO: Final = 0.75
LARGEST_RATIO: Final = 1.33
"""Outside of these the probe does not tell of the run. A choice: of two runs of the same training on a shared virtual machine the
longer one took up to 1.27 times as long for minutes, so that a tenth refused what was the same (docs/accuracy.md)."""

DISK_WAIT_SHARE: Final = 0.5

NEEDS_PROBE: Final = "a probe of the dataset: perfnb.probe_dataset(loader).attach(run)"
NEEDS_QUIET: Final = "a quiet probe: perfnb.probe_dataset(loader) while nothing else runs on this machine"

_probed: WeakKeyDictionary[Run, dict[str, ProbedLoader | Unknown]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class ProbedLoader:
    """A probe of one rank's dataset.

    Attributes
    ----------
    times
        One row per batch in the order of the probe; columns: waiting and computing for its samples, waiting and computing
        for its collating.
    constants
        `get_us`, `put_us`, `fork_us`, ... of the machine; see `perfnb.record.loader_probe_result.LoaderProbe`.
    load
        How busy others kept the machine meanwhile.
    """

    times: NDArray[np.float64]
    constants: Mapping[str, float]
    load: Load

    @property
    def batch_us(self) -> float:
        """Mean time of a batch, samples and collating."""
        return float(self.times.sum(axis=1).mean())

    @property
    def cpu_share(self) -> float:
        """Share of that time on a core."""
        total = float(self.times.sum())
        return float(self.times[:, [1, 3]].sum()) / total if total else 1.0

    def estimate(self, name: str) -> Estimate | None:
        """A constant with its 10th and 90th percentile; None where it was not measured.

        The percentiles are those of single batches; the mean of many, which a step's mean rests on, is known better by the
        root of their number.
        """
        value = self.constants.get(name)
        if value is None:
            return None
        count = max(self.constants.get(f"{name}.n", 1.0), 1.0)
        low, high = (self.constants.get(f"{name}.{end}", value) for end in ("low", "high"))
        return Estimate(value, value - (value - low) / math.sqrt(count), value + (high - value) / math.sqrt(count))


def probed_loader(run: Run, source: str = PROBE, *, is_shadow: bool = False) -> ProbedLoader | Unknown:
    """The probe that a run takes along, or why it has none to rest on; kept for as long as the run lives.

    Parameters
    ----------
    run
        The run.
    source
        Of the rows of `loader_samples`: "probe", or "data_root=/scratch/set" for a probe at another value of a knob.
    is_shadow
        Whether a probe of a busy machine counts too; benchmarks only.
    """
    kept = _probed.setdefault(run, {})
    if source not in kept:
        kept[source] = _made(run, source)
    found = kept[source]
    if isinstance(found, ProbedLoader) and not is_shadow and not found.load.is_quiet:
        return Unknown(f"the dataset was probed on a busy machine: {found.load}", NEEDS_QUIET)
    return found


def has_probe(run: Run) -> bool:
    """Whether a probe of the dataset as the run reads it goes with a run, fit to rest on or not."""
    return bool(run.loader_samples["source"].astype(object).eq(PROBE).any())


def _made(run: Run, source: str) -> ProbedLoader | Unknown:
    rows = run.loader_samples[run.loader_samples["source"].astype(object).eq(source)]
    if rows.empty:
        return Unknown(run.missing.get("loader_samples", "no probe of the dataset goes with this run"), NEEDS_PROBE)
    constants = {name.removeprefix(PREFIX): value for name, value in run.machine.constants.items() if name.startswith(PREFIX)}
    pressure, delay = constants.get("pressure_cpu_share", math.nan), constants.get("delay_share", math.nan)
    load = Load(pressure, constants.get("foreign_cores", 0.0), delay)
    wait = (rows["wall_us"] - rows["cpu_us"]).clip(lower=0.0)
    collating = rows["part"].astype(object).eq("collate")
    parts = pd.DataFrame(
        {
            "sample_wait": wait.where(~collating, 0.0),
            "sample_cpu": rows["cpu_us"].where(~collating, 0.0),
            "collate_wait": wait.where(collating, 0.0),
            "collate_cpu": rows["cpu_us"].where(collating, 0.0),
        }
    )
    times = parts.groupby([rows["rank"], rows["batch"]]).sum().to_numpy(dtype="float64")
    return ProbedLoader(times, constants, load)


def unlike(run: Run, probe: ProbedLoader, batch_us: float) -> Unknown | None:
    """Why a probe does not tell of a run without workers: another mean batch, or batches of another size.

    Parameters
    ----------
    run
        The run.
    probe
        The probe.
    batch_us
        Mean time of a batch in the run; NaN where it is not known.
    """
    size, probed_size = run.config.get("batch_size"), probe.constants.get("batch_size")
    if type(size) is int and probed_size is not None and size != probed_size:
        reason = f"the run loads batches of {size} samples, the probe loaded {probed_size:g}"
        return Unknown(reason, "a probe of the run's own loader")
    ratio = batch_us / probe.batch_us if probe.batch_us else math.nan
    if ratio < LEAST_RATIO or ratio > LARGEST_RATIO:
        reason = (
            f"the probe does not look like the run: a batch took {batch_us / 1e3:.2f} ms in the run and "
            f"{probe.batch_us / 1e3:.2f} ms in the probe: page cache, load, other samples, or "
            "threads inside the samples that a worker does not have?"
        )
        return Unknown(reason, "a probe that loads what the run loads, under the same conditions")
    return None
