"""What the words of each peer mean in our catalogue: one row per rule, in the peer's favour, with the reason.

Two rules hold throughout. A rule that names no cause, only where time goes, counts as right for every cause of that family. What
a peer itself calls information, a cost or a warm-up is no finding: it is neither right nor a false alarm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DATA: Final = (
    "worker_restart",
    "oversubscribed_workers",
    "outlier_samples",
    "cold_cache",
    "slow_sample_read",
    "slow_transform",
    "data_stall",
)
COMMUNICATION: Final = (
    "single_process_parallelism",
    "host_staged_collectives",
    "redundant_gradient_sync",
    "small_collectives",
    "slow_interconnect",
    "exposed_communication",
)
IMBALANCE: Final = ("uneven_stages", "input_straggler", "slow_rank", "uneven_batches", "rank_imbalance")
IDLE: Final = ("host_sync", "recompilation", "launch_overhead", "python_overhead", "gpu_idle")
CPU: Final = ("cpu_contention", "cpu_quota_throttling", "thread_oversubscription", "oversubscribed_workers", "slow_transform")
IRREGULAR: Final = (
    "outlier_steps",
    "outlier_samples",
    "worker_restart",
    "checkpoint_stall",
    "garbage_collection_pauses",
    "python_overhead",
    "cpu_contention",
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one rule of a peer means.

    Attributes
    ----------
    detectors
        Ours that it may stand for; empty: no finding.
    reason
        Why these.
    """

    detectors: tuple[str, ...]
    reason: str

    @property
    def is_finding(self) -> bool:
        """Whether it says that something is wrong."""
        return bool(self.detectors)


def _none(reason: str) -> Meaning:
    return Meaning((), reason)


MEANINGS: Final[Mapping[str, Mapping[str, Meaning]]] = {
    "traceml": {
        "INPUT_BOUND": Meaning((*DATA, "padding_waste"), "input wait, no cause named: any cause of the data"),
        "INPUT_STRAGGLER": Meaning(("input_straggler", "rank_imbalance", *DATA), "names the input of one rank"),
        "COMPUTE_STRAGGLER": Meaning(
            ("slow_rank", "uneven_batches", "uneven_stages", "rank_imbalance"), "names the computing of one rank"
        ),
        "STRAGGLER": Meaning((*IMBALANCE, *COMMUNICATION), "its cause was not measured: synchronization or collectives"),
        "H2D_BOUND": Meaning(("exposed_transfer",), "copies to the device"),
        "H2D_STRAGGLER": Meaning(("exposed_transfer", *IMBALANCE), "copies to the device of one rank"),
        "RESIDUAL_HEAVY": Meaning(
            ("python_overhead", "checkpoint_stall", "garbage_collection_pauses", "cpu_contention", "host_sync", "outlier_steps"),
            "work outside of traced phases: CPU stalls, logging, checkpointing, validation, in its own words",
        ),
        "LOW_GPU_UTILIZATION": Meaning((*IDLE, *DATA), "low utilisation: any cause of an idle device"),
        "MODERATE_GPU_UTILIZATION": Meaning((*IDLE, *DATA), "moderate utilisation: any cause of an idle device"),
        "HIGH_CPU": Meaning(CPU, "the host's CPU is pegged"),
        "HIGH_PROCESS_CPU": Meaning(CPU, "the process's CPU is pegged"),
        "HIGH_HOST_MEMORY": Meaning(("host_memory_pressure", "host_memory_leak"), "the host's memory is full"),
        "HIGH_PROCESS_RSS": Meaning(("host_memory_pressure", "host_memory_leak"), "the process's memory is large"),
        "HIGH_PRESSURE": Meaning(("memory_pressure",), "device memory"),
        "HIGH_GPU_MEMORY": Meaning(("memory_pressure",), "device memory"),
        "VERY_HIGH_GPU_MEMORY": Meaning(("memory_pressure",), "device memory"),
        "HIGH_PROCESS_GPU_MEMORY": Meaning(("memory_pressure",), "device memory"),
        "VERY_HIGH_PROCESS_GPU_MEMORY": Meaning(("memory_pressure",), "device memory"),
        "GPU_MEMORY_RESERVED_OVERHANG": Meaning(("memory_fragmentation",), "reserved over allocated"),
        "RANK_GPU_MEMORY_IMBALANCE": Meaning(("memory_rank_skew",), "device memory across ranks"),
        "IMBALANCE": Meaning(("memory_rank_skew",), "device memory across ranks"),
        "CREEP_EARLY": Meaning(("memory_leak",), "device memory rises"),
        "CREEP_CONFIRMED": Meaning(("memory_leak",), "device memory rises"),
        "HIGH_GPU_TEMPERATURE": Meaning(("clock_throttling",), "a hot device"),
        "HIGH_GPU_POWER": Meaning(("clock_throttling",), "power near its limit"),
        "WARMUP": _none("says that it saw too few steps"),
        "INCOMPLETE_DATA": _none("says that it saw too little"),
        "COMPUTE_BOUND": _none("its own severity is information: that computing dominates is how it should be"),
    },
    "gpuprof": {
        "dataloader_stall": Meaning(DATA, "waiting for the loader, no cause named: any cause of the data"),
        "cpu_bound_dataloader": Meaning(("slow_transform", "oversubscribed_workers"), "CPU pegged: workers are CPU-bound"),
        "io_bound_dataloader": Meaning(("slow_sample_read", "cold_cache"), "names reading from storage"),
        "cold_cache": Meaning(("cold_cache",), "the same"),
        "cache_thrashing": Meaning(("slow_sample_read", "cold_cache"), "reads go on though the page cache is full"),
        "prefetch_queue_starved": Meaning(DATA, "the prefetch queue is empty, no cause named: any cause of the data"),
        "worker_imbalance": Meaning(("outlier_samples", "slow_transform"), "one worker has more to do than others"),
        "kernel_launch_overhead": Meaning(
            ("launch_overhead", "python_overhead", "undersized_batch", "checkpoint_stall", "garbage_collection_pauses"),
            "unaccounted time: many small operators or Python, in its own words",
        ),
        "high_step_variance": Meaning(IRREGULAR, "logging, checkpoints, garbage collection or workers, in its own words"),
        "comm_dominant": Meaning(COMMUNICATION, "communication, no cause named: any cause of it"),
        "rank_skew": Meaning(IMBALANCE, "one rank is slower, no cause named: any cause of imbalance"),
        "bucket_skew": Meaning(IMBALANCE, "one rank is late in a bucket: any cause of imbalance"),
        "regression": Meaning(("regressed_step_time",), "the same"),
        "kernel_drift": Meaning(("growing_step_time",), "one kernel takes longer in the second half"),
        "host_memory_pressure": Meaning(("host_memory_pressure",), "the same"),
        "low_mfu": _none("needs floating-point operations that the user states"),
        "small_batch": _none("rests on samples of a device; without one gpuprof makes them up (MockGPU)"),
        "memory_pressure": _none("as small_batch"),
        "thermal_throttling": _none("as small_batch"),
        "pcie_saturation": _none("as small_batch"),
        "gradient_checkpointing": _none("a remark on how the model computes, not on lost time"),
        "warmup": _none("says to leave the first steps out"),
        "first_step_outlier": _none("says to leave the first step out"),
        "sdpa": _none("a remark on kernels of a trace, which is not recorded here"),
        "cost_projection": _none("a price"),
        "healthy": _none("says that nothing was found"),
    },
    "torch_tb_profiler": {
        "input": Meaning((*DATA, "padding_waste"), "time in the DataLoader, no cause named: any cause of the data"),
        "communication": Meaning(COMMUNICATION, "time in communication, no cause named: any cause of it"),
        "low_utilization": Meaning((*IDLE, *DATA, "undersized_batch", "underfilled_gpu"), "low utilisation: any idle cause"),
        "data_parallel": Meaning(("single_process_parallelism",), "the same"),
        "nccl": Meaning(("host_staged_collectives",), "the same"),
        "tensor_cores": Meaning(("full_precision_math",), "the same"),
        "memory": Meaning(("memory_pressure",), "the same"),
    },
    "sagemaker": {
        "CPUBottleneck": Meaning(CPU, "CPU above 90 % in over half of the samples"),
        "IOBottleneck": Meaning(("slow_sample_read", "cold_cache", "checkpoint_stall"), "waiting for I/O in most samples"),
        "StepOutlier": Meaning(IRREGULAR, "more than ten steps over three standard deviations, no cause named"),
        "Dataloader": Meaning(("oversubscribed_workers",), "more than twice as many loader processes as cores"),
    },
}
