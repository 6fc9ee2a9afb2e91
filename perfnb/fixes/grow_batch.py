"""Fix: train on larger batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

_TIMES: Final = 2
_LARGEST_SHARE: Final = 0.9  # of the memory, that the larger batch may take at most
_ROOT: Final = ("adam", "adamw", "adagrad", "rmsprop", "nadam", "radam", "adamax", "adam_8bit", "adamw_8bit", "lamb")
_LINEAR: Final = ("sgd",)
_SIZE: Final = 1000
_GPU: Final = Machine(device_memory_bytes=(_SIZE,))


def _using(reserved: int) -> Run:
    table = table_from_text("allocator", f"rank step device time_us peak_reserved_bytes\n0 1 0 0 {reserved}")
    return Run(allocator=table, signals=frozenset({"allocator"}), machine=_GPU)


def _on_host(used: int) -> Run:
    header = "rank time_us own_memory_bytes memory_bytes memory_limit_bytes"
    table = table_from_text("host_samples", f"{header}\n0 0 {used} 500 {_SIZE}")
    return Run(host_samples=table, signals=frozenset({"host_samples"}))


@fix(
    knobs=("batch_size",),
    answers=("undersized_batch", "underfilled_gpu", "memory_unused", "launch_overhead"),
    reason="what each step costs whatever its batch is paid for less often, and a larger batch fills the device",
    source="McCandlish et al. (2018), An Empirical Model of Large-Batch Training; memory: at most all of it doubles",
    caution="the learning rate goes along: x 2 for SGD, x sqrt(2) for Adam-like (Goyal 2017, Malladi 2022); check the loss",
    examples=(
        FixExample(
            "400 of 1000 bytes become 800 at most",
            {"batch_size": 8},
            {"batch_size": 16},
            machine=_GPU,
            make_run=lambda: _using(400),
        ),
        FixExample("500 become 1000", {"batch_size": 8}, None, "may not fit", machine=_GPU, make_run=lambda: _using(500)),
        FixExample(
            "with its learning rate, of SGD",
            {"batch_size": 8, "learning_rate": 0.1, "optimizer": "sgd"},
            {"batch_size": 16, "learning_rate": 0.2},
            make_run=lambda: _on_host(100),
        ),
        FixExample(
            "with its learning rate, of Adam",
            {"batch_size": 8, "learning_rate": 1.0, "optimizer": "adam"},
            {"batch_size": 16, "learning_rate": 2**0.5},
            make_run=lambda: _on_host(100),
        ),
        FixExample(
            "of an optimizer without a known rule the batch alone",
            {"batch_size": 8, "learning_rate": 1.0, "optimizer": "lbfgs"},
            {"batch_size": 16},
            make_run=lambda: _on_host(100),
        ),
        FixExample("a host without room", {"batch_size": 8}, None, "may not fit", make_run=lambda: _on_host(450)),
        FixExample("memory not known", {"batch_size": 8}, None, "not known"),
        FixExample("not a number", {"batch_size": "auto"}, None, "'auto'", make_run=lambda: _on_host(100)),
    ),
)
def grow_batch(config: Mapping[str, Any], run: Run, machine: Machine) -> Mapping[str, Any] | str:
    """Double the batch, with the learning rate that goes along, where even doubling all memory in use would fit.

    The learning rate stays as it is where no rule is known for the optimizer. The bound of memory is
    high, since parameters and optimizer state do not grow with the batch.
    """
    now = value_of(config, "batch_size")
    if type(now) is not int or now < 1:
        return f"batch_size is {now!r}, not a number of samples"
    share = _share_of_memory(run, machine)
    if share is None:
        return "whether a larger batch fits is not known: neither peaks nor the size of the memory were recorded"
    if share >= _LARGEST_SHARE:
        return f"twice the batch may not fit: up to {share:.0%} of the memory"
    changes: dict[str, Any] = {"batch_size": _TIMES * now}
    rate = value_of(config, "learning_rate") if has_knob(config, "learning_rate") else None
    kind = str(value_of(config, "optimizer")).lower() if has_knob(config, "optimizer") else ""
    if isinstance(rate, float) and kind in (*_ROOT, *_LINEAR):  # of other optimizers no rule is known
        changes["learning_rate"] = rate * (_TIMES**0.5 if kind in _ROOT else _TIMES)
    return changes


def _share_of_memory(run: Run, machine: Machine) -> float | None:
    """Share of the memory that twice the batch takes at most: of the fullest device, else of the host; None if not known."""
    peaks = run.allocator.groupby("device")["peak_reserved_bytes"].max().dropna()
    sizes = {device: size for device, size in enumerate(machine.device_memory_bytes) if size}
    shares = [_TIMES * float(peak) / sizes[device] for device, peak in peaks.items() if device in sizes]
    if shares or run.uses_device:
        return max(shares, default=None)
    samples = run.host_samples.dropna(subset=["own_memory_bytes", "memory_bytes", "memory_limit_bytes"])
    if samples.empty:
        return None
    more = (_TIMES - 1) * samples["own_memory_bytes"] + samples["memory_bytes"]
    return float((more / samples["memory_limit_bytes"]).astype("float64").max())
