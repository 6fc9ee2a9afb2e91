"""Which device rows are communication, by their arguments or by name, and the calls that they make up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from perfnb.errors import PerfnbError

# Regular expressions on names in lower case; each library with its source.
NAMES: Final = (
    r"nccl|rccl",  # NCCL, RCCL: ncclKernel_, ncclDevKernel_
    r"multimem_|one_shot_all_|two_shot_all_",  # PyTorch symmetric memory, torch/csrc/distributed/c10d/cuda
    r"(?:^|::|_|\s)(?:deep_)?ep::",  # DeepEP, csrc/kernels: namespace ep or deep_ep
    r"nvshmem|mscclpp",  # NVSHMEM, MSCCL++
    r"cross_device_reduce|quick_?reduce|all_?reduce",  # vLLM, SGLang, AITER custom all-reduce
    r"allreduce_fusion|userbuffers",  # FlashInfer and TensorRT-LLM; Transformer Engine
    r"oneccl|hccl",  # prior: no kernel of theirs was seen
    r"all_?gather|reduce_?scatter|all_?to_?all",  # prior: generic
)
PATTERN: Final = re.compile("|".join(NAMES))

BYTES_OF: Final = {  # dtype as Kineto spells it, torch/csrc/distributed/c10d/ParamCommsUtils
    "float": 4,
    "half": 2,
    "c10::half": 2,
    "bfloat16": 2,
    "c10::bfloat16": 2,
    "double": 8,
    "long": 8,
    "int": 4,
    "byte": 1,
    "char": 1,
    "bool": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}

_COLLECTIVES: Final = {
    r"all_?reduce": "all_reduce",
    r"all_?gather": "all_gather",
    r"reduce_?scatter": "reduce_scatter",
    r"all_?to_?all": "all_to_all",
    r"broadcast": "broadcast",
    r"barrier": "barrier",
    r"send_?recv|sendrecv": "send_recv",
    r"gather": "gather",
    r"scatter": "scatter",
    r"reduce": "reduce",
    r"send": "send",
    r"recv": "recv",
}


COMPUTE_NAME: Final = "void at::native::"
"""Start of the names of PyTorch's own compute kernels, which an operator of torch.distributed may launch too."""


def is_communication(name: str) -> bool:
    """Whether a kernel's name is that of a communication library.

    Examples
    --------
    >>> is_communication("ncclDevKernel_Generic_1"), is_communication("void cub::DispatchReduceByKey<int>")
    (True, False)
    """
    return PATTERN.search(name.lower()) is not None


def recognizer(names: Sequence[str] = ()) -> Callable[[str], bool]:
    """Test whether a kernel's name is that of communication, with further regular expressions on names in lower case.

    Raises
    ------
    PerfnbError
        If one of them is no regular expression.

    Examples
    --------
    >>> recognizer(["my_ring"])("void My_Ring_kernel")
    True
    """
    try:
        pattern = re.compile("|".join([*NAMES, *(f"(?:{name.lower()})" for name in names)]))
    except re.error as error:
        message = f"communication_names={list(names)!r}: {error}; each is a regular expression on kernel names in lower case"
        raise PerfnbError(message) from error
    return lambda name: pattern.search(name.lower()) is not None


def collective_of(name: str) -> str | None:
    """Type of a collective from a kernel's, an operator's or an annotation's name; None where the name does not say.

    Examples
    --------
    >>> (
    ...     collective_of("gloo:all_reduce"),
    ...     collective_of("ncclKernel_AllReduce_RING_LL_Sum_float"),
    ...     collective_of("ncclDevKernel_Generic"),
    ... )
    ('all_reduce', 'all_reduce', None)
    """
    lower = name.lower()
    for pattern, collective in _COLLECTIVES.items():
        if re.search(pattern, lower):
            return collective
    return None
