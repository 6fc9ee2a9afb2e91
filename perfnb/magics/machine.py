"""%perfnb_watch: samples of the host and its GPUs for all later cells, at most one sampler at a time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from perfnb.errors import PerfnbError

if TYPE_CHECKING:
    import pandas as pd

    from perfnb.document import Bundle
    from perfnb.record.recorder import Recorder

SMALLEST_INTERVAL_S: Final = 0.2
KEPT_SAMPLES: Final = 600

_OF_HOST: Final = MappingProxyType(
    {
        "cpu_share": "CPU busy",
        "own_cpu_cores": "cores of this kernel",
        "pressure_cpu_share": "waiting for a core",
        "pressure_io_share": "waiting for disks",
        "memory_bytes": "memory",
        "memory_limit_bytes": "limit",
    }
)
_OF_GPU: Final = MappingProxyType(
    {
        "utilization_share": "time with a kernel",
        "memory_used_bytes": "memory",
        "memory_total_bytes": "of",
        "power_w": "power in W",
        "sm_clock_mhz": "clock in MHz",
    }
)


class MachineWatch:
    """Samples the machine between the watched cells; a recording of a training takes its place while it runs.

    Attributes
    ----------
    interval_s
        Time between samples.
    is_on
        Whether it was asked for.
    """

    def __init__(self) -> None:
        self.interval_s = 1.0
        self.is_on = False
        self._recorder: Recorder | None = None

    def on(self, interval_s: float) -> None:
        """Sample from now on.

        Parameters
        ----------
        interval_s
            Time between samples.
        """
        self._end()
        self.interval_s, self.is_on = interval_s, True
        self.resume()

    def off(self) -> None:
        """Sample no more."""
        self.is_on = False
        self._end()

    def resume(self) -> None:
        """Sample again if it was asked for, and no recording is under way."""
        from perfnb.record.recorder import Recorder, active  # noqa: PLC0415 - loading the extension must stay cheap

        if not self.is_on or active() is not None:
            return
        recorder = Recorder(
            hooks=False,
            gpu_interval_s=self.interval_s,
            host_interval_s=self.interval_s,
            yields=True,
            keep_rows=KEPT_SAMPLES,
        )
        try:
            self._recorder = recorder.start()
        except PerfnbError:  # another thread's recording began just now: after the next cell it is tried again
            self._recorder = None
        except BaseException:
            self.is_on = False
            raise

    def status(self) -> Bundle:
        """What was sampled last.

        Returns
        -------
        Bundle
            A line for the host and one per GPU; where it is off, or not yet sampled, that.
        """
        from perfnb.document import Line, Verdict, bundle  # noqa: PLC0415 - loading the extension must stay cheap

        if not self.is_on:
            return bundle([Verdict("", "The machine is not being sampled: %perfnb_watch on", label="watch")])
        state = f"Sampled every {self.interval_s:g} s, last {KEPT_SAMPLES} kept"
        if self._recorder is None or not self._recorder.is_recording:
            return bundle([Verdict("", f"{state}; a recording is under way, which samples by itself", label="watch")])
        run = self._recorder.run
        lines = [*_host_lines(run.host_samples), *_gpu_lines(run.gpu_samples)]
        if run.gpu_samples.empty:
            lines.append(("GPU", run.missing.get("gpu_samples", "not yet sampled")))
        return bundle([Verdict("", state, label="watch"), *(Line(label, words) for label, words in lines)])

    def _end(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.finish()


def _host_lines(samples: pd.DataFrame) -> list[tuple[str, str]]:
    return [("host", _last(samples, _OF_HOST) or "not yet sampled")]


def _gpu_lines(samples: pd.DataFrame) -> list[tuple[str, str]]:
    return [(f"GPU {gpu}", _last(own, _OF_GPU)) for gpu, own in samples.groupby("gpu")]


def _last(samples: pd.DataFrame, columns: Mapping[str, str]) -> str:
    """The last known value of each column: some are sampled less often."""
    from perfnb import text  # noqa: PLC0415 - loading the extension must stay cheap

    known = {words: (column, samples[column].dropna()) for column, words in columns.items()}
    return ", ".join(
        f"{words} {f'{values.iloc[-1]:.2f}' if column.endswith('_cores') else text.quantity(column, values.iloc[-1])}"
        for words, (column, values) in known.items()
        if len(values)
    )
