"""Fix: exchange gradients in 16 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.expected_bandwidth import link_between
from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

_SIXTEEN_BITS: Final = ("bfloat16", "half", "float16", "bf16", "fp16", "c10::bfloat16", "c10::half")
_WITHOUT_BF16: Final = ("V100", "P100", "T4", "RTX 20", "TITAN V")  # compute capability below 8.0
_A100 = Machine(devices=("NVIDIA A100-PCIE-40GB",) * 2, links=(("X", "SYS"), ("SYS", "X")))


def _run(clock: str, dtype: str = "Float") -> Run:
    text = f"rank group collective dtype bytes start_us duration_us clock\n0 x all_reduce {dtype} 100 0 9 {clock}"
    return Run(collectives=table_from_text("collectives", text))


@fix(
    knobs=("gradient_compression",),
    answers=("exposed_communication",),
    reason="gradients in 16 bits are half the bytes of 32",
    source="PyTorch documentation, DDP communication hooks: bf16_compress_hook (NCCL from 2.10 on), fp16_compress_hook",
    caution="gradients are rounded before they are added up: compare the loss with that of the same run without it",
    examples=(
        FixExample(
            "NCCL",
            {"gradient_compression": "none"},
            {"gradient_compression": "bf16"},
            machine=_A100,
            make_run=lambda: _run("device"),
        ),
        FixExample(
            "a GPU without bf16",
            {"gradient_compression": "none", "backend": "nccl"},
            {"gradient_compression": "fp16"},
            machine=Machine(devices=("Tesla V100-SXM2-16GB",)),
        ),
        FixExample(
            "gloo",
            {"gradient_compression": "none", "backend": "gloo"},
            None,
            "exchanged by gloo, without a link between GPUs",
        ),
        FixExample(
            "gloo, as recorded", {"gradient_compression": "none"}, None, "exchanged by gloo", make_run=lambda: _run("host")
        ),
        FixExample("backend not known", {"gradient_compression": "none"}, None, "backend is not known", machine=_A100),
        FixExample(
            "16 bits as it is",
            {"gradient_compression": "none"},
            None,
            "16 bits already, over PCIe",
            machine=_A100,
            make_run=lambda: _run("device", "BFloat16"),
        ),
        FixExample("already", {"gradient_compression": "bf16", "backend": "nccl"}, None, "already", machine=_A100),
    ),
)
def compress_gradients(config: Mapping[str, Any], machine: Machine, run: Run) -> Mapping[str, Any] | str:
    """Register `bf16_compress_hook`, or `fp16_compress_hook` on GPUs without bf16, on DDP with NCCL."""
    now = value_of(config, "gradient_compression")
    if now in ("bf16", "fp16"):
        return f"gradient_compression is {now} already"
    clocks = set(run.collectives["clock"].dropna())
    backend = value_of(config, "backend") if has_knob(config, "backend") else None
    link = link_between(machine.links)
    over = f"over {link}" if link else "over a link that is not known" if machine.devices else "without a link between GPUs"
    if backend == "gloo" or (backend is None and clocks == {"host"}):
        return f"gradients are exchanged by gloo, {over}: the bf16 hook raises there"
    if backend is None and "device" not in clocks:
        return f"the backend is not known ({over}): the hooks need NCCL"
    if backend not in (None, "nccl") and "nccl" not in str(backend):
        return f"backend is {backend}, {over}: the hooks need NCCL"
    dtypes = {str(dtype).lower() for dtype in run.collectives["dtype"].dropna()}
    if dtypes and dtypes <= set(_SIXTEEN_BITS):
        return f"gradients are exchanged in 16 bits already, {over}"
    name = machine.devices[0] if machine.devices else ""
    return {"gradient_compression": "fp16" if any(old in name for old in _WITHOUT_BF16) else "bf16"}
