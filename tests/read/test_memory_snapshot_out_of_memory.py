"""Out-of-memory messages of torch's versions: their numbers, and whether memory was short or in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.errors import OutOfMemoryTextError
from perfnb.read.memory_snapshot import OutOfMemory, out_of_memory

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# As people posted them, names and paths left out; which versions write so: the older form until 2.0, "capacty" in 2.1
OLDEST = (
    "CUDA out of memory. Tried to allocate 12.50 MiB (GPU 0; 10.92 GiB total capacity; 8.57 MiB already allocated; "
    "9.28 GiB free; 4.68 MiB cached)"
)
TORCH_1_13 = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB (GPU 0; 15.90 GiB total "
    "capacity; 13.13 GiB already allocated; 415.88 MiB free; 14.80 GiB reserved in total by PyTorch) If reserved "
    "memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation.  See documentation for "
    "Memory Management and PYTORCH_CUDA_ALLOC_CONF"
)
TORCH_2_1 = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.70 GiB. GPU 0 has a total capacty of 6.00"
    " GiB of which 0 bytes is free. Of the allocated memory 2.93 GiB is allocated by PyTorch, and 2.30 GiB is "
    "reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting max_split_size_mb"
    " to avoid fragmentation."
)
TORCH_2_2 = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.00 MiB. GPU 0 has a total capacity of "
    "23.65 GiB of which 11.06 MiB is free. Including non-PyTorch memory, this process has 23.60 GiB memory in use. "
    "Of the allocated memory 22.90 GiB is allocated by PyTorch, and 194.87 MiB is reserved by PyTorch but "
    "unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
OTHERS = (
    "CUDA out of memory. Tried to allocate 124.68 GiB. GPU 1 has a total capacity of 95.22 GiB of which 51.23 GiB "
    "is free. Process 608946 has 14.91 GiB memory in use. Process 734147 has 29.07 GiB memory in use. Of the "
    "allocated memory 25.50 GiB is allocated by PyTorch, and 3.14 GiB is reserved by PyTorch but unallocated."
)
HIP_WITH_FRACTION = (
    "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 255.98 "
    "GiB of which 244.65 GiB is free. 1.05 GiB allowed; Of the allocated memory 1017.01 MiB is allocated by "
    "PyTorch, with 17.00 MiB allocated in private pools (e.g., HIP Graphs), and 54.99 MiB is reserved by PyTorch "
    "but unallocated."
)


@pytest.mark.parametrize(
    ("text", "wanted", "total", "free", "allocated", "unallocated", "cause"),
    [
        (OLDEST, 12.5 * MIB, 10.92 * GIB, 9.28 * GIB, 8.57 * MIB, 0, "limit"),
        (TORCH_1_13, 512 * MIB, 15.9 * GIB, 415.88 * MIB, 13.13 * GIB, 1.67 * GIB, "fragmentation"),
        (TORCH_2_1, 1.7 * GIB, 6 * GIB, 0, 2.93 * GIB, 2.3 * GIB, "fragmentation"),
        (TORCH_2_2, 22 * MIB, 23.65 * GIB, 11.06 * MIB, 22.9 * GIB, 194.87 * MIB, "fragmentation"),
        (OTHERS, 124.68 * GIB, 95.22 * GIB, 51.23 * GIB, 25.5 * GIB, 3.14 * GIB, "shortage"),
        (HIP_WITH_FRACTION, 2 * MIB, 255.98 * GIB, 244.65 * GIB, 1017.01 * MIB, 54.99 * MIB, "limit"),
    ],
)
def test_the_numbers_and_the_cause_of_each_form(
    text: str, wanted: float, total: float, free: float, allocated: float, unallocated: float, cause: str
) -> None:
    error = out_of_memory(text)

    found = (error.wanted_bytes, error.total_bytes, error.free_bytes, error.allocated_bytes, error.reserved_unallocated_bytes)
    assert found == pytest.approx((wanted, total, free, allocated, unallocated), abs=2)
    assert error.cause == cause


def test_a_shortage_says_how_much_was_missing() -> None:
    error = out_of_memory(OTHERS)

    # 124.68 GiB wanted (up to 2 MiB less) - 51.23 free - 3.14 in holes = 70.31, each with two decimals
    assert error.shortage_bytes == pytest.approx((70.31 * GIB - 2 * MIB, 70.31 * GIB), abs=0.016 * GIB)
    assert error.verdict.startswith("a true shortage of 70.3 GiB: 125 GiB as a segment wanted, 51.2 GiB free on the device")
    assert error.device == 1
    assert error.other_bytes == (round(14.91 * GIB), round(29.07 * GIB))
    # 95.22 - 51.23 - 25.5 - 3.14
    assert error.outside_bytes == pytest.approx(15.35 * GIB, rel=1e-9)


def test_fragmentation_says_how_much_there_was_to_spare() -> None:
    assert out_of_memory(TORCH_2_1).verdict == (
        "fragmentation: enough memory in all, with 604 MiB to 627 MiB to spare, but not in one piece: "
        "1.70 GiB as a segment wanted, 0 B free on the device, 2.30 GiB held by torch in holes"
    )


def test_a_memory_fraction_is_named() -> None:
    error = out_of_memory(HIP_WITH_FRACTION)

    assert (error.allowed_bytes, error.private_pools_bytes) == (round(1.05 * GIB), 17 * MIB)
    assert error.verdict.startswith("the memory fraction was the limit, not the device: ")
    assert out_of_memory(OLDEST).verdict.startswith("a memory fraction, or a limit of driver or system, was the limit")


def test_messages_that_a_terminal_wrapped_and_the_last_of_several_are_read() -> None:
    wrapped = TORCH_2_2.replace(" is free", "\n   is free").replace("this process", "this\nprocess")

    error = out_of_memory(f"{OTHERS}\nsome lines\n{wrapped}\nmore lines")

    assert error.free_bytes == round(11.06 * MIB)
    assert error.in_use_bytes == round(23.6 * GIB)


@pytest.mark.parametrize(
    ("wanted", "least", "most"),
    [
        ("2.00 MiB", 512, MIB),
        ("20.00 MiB", MIB + 512, 20 * MIB),
        ("22.00 MiB", 20 * MIB + 512 - 0.005 * MIB, 22 * MIB + 0.005 * MIB),
    ],
)
def test_the_request_behind_a_segment_lies_in_a_range(wanted: str, least: float, most: float) -> None:
    error = out_of_memory(TORCH_2_2.replace("22.00 MiB", wanted))

    assert error.request_bytes == pytest.approx((least, most))


def test_where_the_two_ends_of_the_request_disagree_it_says_so() -> None:
    # 5 MiB in holes, nothing free: enough for a request of 1 to 5 MiB, not for one of up to 20
    error = OutOfMemory(
        wanted_bytes=20 * MIB, free_bytes=0, allocated_bytes=GIB, reserved_unallocated_bytes=5 * MIB, is_segment=True
    )

    assert error.cause == "unclear"
    assert "a shortage of up to 15.0 MiB or fragmentation" in error.verdict
    assert "between 1.00 MiB and 20.0 MiB" in error.verdict


def test_what_is_not_told_is_not_judged() -> None:
    assert OutOfMemory(wanted_bytes=5).cause == "not told"
    assert "cannot be told" in OutOfMemory(wanted_bytes=5).verdict
    assert OutOfMemory().verdict == "how much was wanted is not told"
    assert OutOfMemory().outside_bytes is None
    assert out_of_memory("CUDA out of memory. Tried to allocate 3.00 GiB").cause == "not told"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "paste the whole message"),
        ("all is well", "paste the whole message"),
        ("RuntimeError: CUDA error: out of memory", "comes from CUDA itself"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "comes from cuBLAS"),
        ("MPS backend out of memory (MPS allocated: 17.98 GB). Tried to allocate 256.00 MB on private pool.", "MPS backend"),
        ("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried", "the host's memory"),
    ],
)
def test_other_texts_are_no_message_of_the_allocator(text: str, says: str) -> None:
    with pytest.raises(OutOfMemoryTextError, match=says):
        out_of_memory(text)


@given(st.text(), st.integers(0, 400))
def test_any_text_around_or_inside_a_message_ends_in_numbers_or_in_an_error_of_ours(noise: str, place: int) -> None:
    try:
        error = out_of_memory(noise + TORCH_2_2[:place] + noise + TORCH_2_2[place:])
    except OutOfMemoryTextError:
        return
    assert error.verdict
