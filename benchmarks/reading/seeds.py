"""Small traces to be damaged: written by hand, with every kind of event, and corpus files cut to some hundred events."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.reading.children import CORPUS

_EVENTS: Final = 100
_LARGEST_BYTES: Final = 1_300_000  # as stored: files that are quick to cut
_MOST_CORPUS_SEEDS: Final = 12
_LONGEST_NAME: Final = 300
_LARGEST_KEY_BYTES: Final = 2_000


def handmade() -> Iterator[tuple[str, bytes]]:
    """Name and text of each trace written by hand."""
    events = _training()
    head = {
        "schemaVersion": 1,
        "deviceProperties": [{"id": 0, "name": "Device", "totalGlobalMem": 34079899648}],
        "distributedInfo": {"backend": "nccl", "rank": 1, "world_size": 2},
    }
    tail = {"traceName": "trace.json", "baseTimeNanoseconds": 1751410836000000000}
    yield "indented", json.dumps({**head, "traceEvents": events, **tail}, indent=1).encode()
    yield "compact", json.dumps({**head, "traceEvents": events, **tail}, separators=(",", ":")).encode()
    yield "keys_after", json.dumps({"traceEvents": events, **head, **tail}).encode()
    yield "bare_list", json.dumps(events).encode()
    yield "of_2021", json.dumps({"schemaVersion": 1, "traceEvents": _of_2021()}).encode()
    yield "odd_values", json.dumps({"traceEvents": _odd_values()}).encode()


def of_corpus(corpus: Path = CORPUS) -> Iterator[tuple[str, bytes]]:
    """Name and text of small corpus files, cut to events of every category; nothing where there is no corpus."""
    traces = corpus / "traces"
    found = sorted(path for path in traces.rglob("*.json*") if path.stat().st_size < _LARGEST_BYTES) if traces.is_dir() else []
    step = max(1, len(found) // _MOST_CORPUS_SEEDS)
    for path in found[::step][:_MOST_CORPUS_SEEDS]:
        content = path.read_bytes()
        whole = json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
        if isinstance(whole, dict) and isinstance(whole.get("traceEvents"), list):
            kept = {key: value for key, value in whole.items() if len(json.dumps(value)) < _LARGEST_KEY_BYTES}
            yield f"{path.parent.name}/{path.name[:24]}", json.dumps(kept | {"traceEvents": _cut(whole["traceEvents"])}).encode()


def _cut(events: list[Any]) -> list[Any]:
    """The first events of each category and phase, in file order, a hundred in all."""
    kinds: dict[tuple[str, str], int] = {}
    chosen = []
    for event in events:
        if not isinstance(event, dict) or len(str(event.get("name", ""))) > _LONGEST_NAME:
            continue
        kind = (str(event.get("ph")), str(event.get("cat")))
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] <= _EVENTS // 5:
            chosen.append(event)
    return chosen[:_EVENTS]


def _event(name: str, category: str, start: float, duration: float, thread: object = 1, **more: Any) -> dict[str, Any]:
    event = {"ph": "X", "cat": category, "name": name, "pid": 10, "tid": thread, "ts": start, "dur": duration}
    return event | {"args": more.pop("args", {})} | more


def _training() -> list[dict[str, Any]]:
    """Two steps: loading, forward, backward, optimizer, launches, kernels, copies, a collective, syncs, memory, flows, names."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 10, "tid": 0, "ts": 0, "args": {"name": "python"}},
        {"ph": "M", "name": "thread_sort_index", "pid": 10, "tid": 1, "ts": 0, "args": {"sort_index": 1}},
    ]
    for step in range(2):
        at = 1_000_000.125 + step * 100
        link = 100 + 10 * step
        number = {"Sequence number": 10 + step, "External id": link, "Input Dims": [[8, 16], []], "Input type": ["float", ""]}
        kernel = {
            "device": 0,
            "stream": 7,
            "correlation": link,
            "grid": [8, 1, 1],
            "block": [128, 1, 1],
            "est. achieved occupancy %": 31,
        }
        copy = {"device": 0, "stream": 7, "correlation": link + 1, "bytes": 4096, "memory bandwidth (GB/s)": 2.5}
        call = {
            "Collective name": "allreduce",
            "dtype": "Float",
            "In msg nelems": 1024,
            "Out msg nelems": 1024,
            "Group size": 2,
            "Process Group Name": "0",
            "Process Group Ranks": "[0, 1]",
            "Seq": 5 + step,
        }
        sync = {"stream": 7, "correlation": link + 3, "wait_on_stream": 20, "wait_on_cuda_event_record_corr_id": link}
        freed = {"Device Type": 1, "Device Id": 0, "Addr": 140000000000 + step, "Bytes": (-1) ** step * 512}
        events += [
            _event(f"ProfilerStep#{step}", "user_annotation", at, 100.0),
            _event("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", "user_annotation", at, 20.5),
            _event("aten::linear", "cpu_op", at + 22, 20.25, args=number),
            _event("cudaLaunchKernel", "cuda_runtime", at + 25, 5, args={"correlation": link, "cbid": 211}),
            _event("gemm_kernel<128, 64>(float const*)", "kernel", at + 33, 17.001, 7, args=kernel),
            _event("cudaMemcpyAsync", "cuda_runtime", at + 43, 3, args={"correlation": link + 1}),
            _event("Memcpy HtoD (Pageable -> Device)", "gpu_memcpy", at + 51, 4, 7, args=copy),
            _event("Memset (Device)", "gpu_memset", at + 56, 1, 7, args={"device": 0, "stream": 7, "bytes": 64}),
            _event("nccl:all_reduce", "user_annotation", at + 57, 5),
            _event("record_param_comms", "cpu_op", at + 57, 4, args=call),
            _event("cudaLaunchKernelExC", "cuda_driver", at + 58, 1, args={"correlation": link + 2}),
            _event(
                "ncclDevKernel_AllReduce_Sum_f32_RING_LL(args)",
                *("kernel", at + 62, 20, 20),
                args={"device": 0, "stream": 20, "correlation": link + 2, **call},
            ),
            _event("autograd::engine::evaluate_function: AddmmBackward0", "cpu_op", at + 62, 20, 2, args=number),
            _event("Optimizer.step#SGD.step", "user_annotation", at + 83, 10),
            _event("cudaStreamSynchronize", "cuda_runtime", at + 94, 4, args={"correlation": link + 3}),
            _event("Stream Wait Event", "cuda_sync", at + 94, 3, 7, args=sync),
            _event("gloo:all_reduce", "user_annotation", at + 95, 2, 3, args={"Input Dims": [[4]], "Input type": ["float"]}),
            _event("Activity Buffer Request", "overhead", at + 98, 1),
            _event("train.py(12): step", "python_function", at + 1, 97, args={"Python id": step, "Python parent id": None}),
            _event(f"ProfilerStep#{step}", "gpu_user_annotation", at + 33, 50, 7, args={"stream": 7}),
            {
                "ph": "i",
                "cat": "cpu_instant_event",
                "s": "t",
                "name": "[memory]",
                "pid": 10,
                "tid": 1,
                "ts": at + 30,
                "args": freed,
            },
            {"ph": "s", "id": link, "pid": 10, "tid": 1, "ts": at + 25, "cat": "ac2g", "name": "ac2g"},
            {"ph": "f", "id": link, "pid": 0, "tid": 7, "ts": at + 33, "cat": "ac2g", "name": "ac2g", "bp": "e"},
            {"ph": "C", "name": "counter", "pid": 10, "tid": 1, "ts": at + 30, "args": {"value": 3}},
        ]
    marks = {"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": 1_000_250}
    return [*events, _event("PyTorch Profiler (0)", "Trace", 1_000_000, 250, "Trace PyTorch Profiler", pid="Spans"), marks]


def _of_2021() -> list[dict[str, Any]]:
    """The spellings of 2021: categories with capitals, threads as text, whole microseconds."""
    renamed = {
        "cpu_op": "Operator",
        "user_annotation": "Operator",
        "cuda_runtime": "Runtime",
        "kernel": "Kernel",
        "gpu_memcpy": "Memcpy",
        "gpu_memset": "Memset",
    }
    found = []
    for event in _training():
        category = renamed.get(str(event.get("cat")))
        if category is not None:
            arguments = {("external id" if key == "External id" else key): value for key, value in event["args"].items()}
            thread = "stream 7" if category in ("Kernel", "Memcpy", "Memset") else "25738"
            found.append(
                event | {"cat": category, "tid": thread, "ts": int(event["ts"]), "dur": int(event["dur"]), "args": arguments}
            )
    memory = {"Device Type": 0, "Device Id": -1, "Bytes": 64}
    return [*found, {"ph": "i", "s": "t", "name": "[memory]", "pid": 10, "tid": 25738, "ts": 1_000_030, "args": memory}]


def _odd_values() -> list[dict[str, Any]]:
    """Values that some writer wrote: quoted numbers, exponents, streams in many spellings, nulls, categories of other devices."""
    kernel = {"device": 0, "correlation": 2**63, "Comms Id": 2**64 - 1}
    events = [
        _event("quoted", "cpu_op", "1000.5", "2.25", args={"correlation": "7"}),  # type: ignore[arg-type]
        _event("exponent", "cpu_op", 1.0005e3, 2e-3),
        _event("negative", "cpu_op", -5, 0),
        _event("no arguments", "cpu_op", 1001, 1) | {"args": None},
        _event("triton_kernel", "cpu_op", 1002, 1, args={"stream": 0, "grid": "grid(1, 1)"}),
        _event("hipLaunchKernel", "hip_runtime", 1003, 1, args={"correlation": 3}),
        _event("new category", "something_new", 1004, 1),
        _event("no category", "cpu_op", 1005, 1) | {"cat": None},
        _event("Memcpy PtoP (Device -> Device)", "gpu_memcpy", 1006, 1, args={"device": 0, "bytes": "4096"}),
        _event("job", "mtia_ccp_events", 1007, 1),
        _event("Context Sync", "cuda_sync", 1008, 5, args={"stream": 4294967295, "correlation": 9}),
        {"ph": "B", "name": "begin", "pid": 10, "tid": 1, "ts": 1009},
        {"ph": "E", "pid": 10, "tid": 1, "ts": 1010},
    ]
    return [
        *events,
        *(_event("k", "kernel", 1011 + n, 1, args=kernel | {"stream": s}) for n, s in enumerate((-1, "0x0", "", None, "7"))),
    ]
