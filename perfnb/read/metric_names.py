"""Names that logs give to what they measure: the one table of synonyms, and names that only one tool writes."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Kind = Literal["moment", "time", "bytes", "share", "flow", "watt", "celsius", "megahertz", "number", "whole", "text"]
"""flow: bytes that went through a disk or network, as a counter, an amount per row or a rate."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a column may mean.

    Attributes
    ----------
    name
        The name that perfnb uses for it, also a key of `units=`.
    kind
        What its unit is of.
    table, column
        Where its values go; table "row" says which row it is.
    synonyms
        Names in logs, in lower case, words joined by "_", without unit and number of the GPU.
    """

    name: str
    kind: Kind
    table: str
    column: str
    synonyms: tuple[str, ...] = ()


def _q(name: str, kind: Kind, place: str, *synonyms: str) -> Quantity:
    table, _, column = place.partition(".")
    return Quantity(name, kind, table, column, (name, *synonyms))


# fmt: off
QUANTITIES: Final = (
    _q("step", "whole", "row.step", "global_step", "iteration", "iter", "it", "steps", "current_step", "train_step", "batch_idx"),
    _q("epoch", "number", "row.epoch", "epochs", "current_epoch"),
    _q("rank", "whole", "row.rank", "global_rank", "process_rank", "rank_id"),
    _q("gpu", "whole", "row.gpu", "gpu_id", "gpu_index", "device", "device_id", "device_index"),
    _q("host", "text", "row.host", "hostname", "node", "node_name"),
    _q("timestamp", "moment", "row.time", "time", "wall_time", "datetime", "date", "created_at", "relative_time", "elapsed_time",
       "elapsed", "runtime", "time_since_start"),
    _q("step_time", "time", "steps.duration_us", "iteration_time", "iter_time", "batch_time", "step_duration", "time_per_step",
       "time_per_iteration", "time_per_batch", "elapsed_time_per_iteration", "train_step_time", "train_step_timing",
       "end_to_end", "per_step", "per_iteration"),
    _q("data_loading_time", "time", "phases.data", "data_time", "data_load_time", "dataloader_time", "dataloading_time",
       "data_loader_time", "load_time", "loading_time", "data_wait_time", "data_fetch_time", "fetch_time", "batch_load_time",
       "batch_generator_time", "data_loading"),
    _q("transfer_time", "time", "phases.transfer", "data_transfer_time", "h2d_time", "host_to_device_time", "to_device_time"),
    _q("forward_time", "time", "phases.forward", "fwd_time", "forward", "fwd", "forward_pass_time", "forward_compute_time"),
    _q("backward_time", "time", "phases.backward", "bwd_time", "backward", "bwd", "backward_pass_time", "backward_compute_time"),
    _q("communication_time", "time", "phases.communication", "comm_time", "allreduce_time", "all_reduce_time", "grad_sync_time",
       "gradient_sync_time", "grads_all_reduce_time"),
    _q("optimizer_time", "time", "phases.optimizer", "optim_time", "opt_time", "optimizer_step_time", "opt_step_time",
       "optimizer_step", "opt", "update_time"),
    _q("loss", "number", "training.loss", "train_loss", "training_loss", "train_loss_step", "loss_step", "lm_loss",
       "global_avg_loss"),
    _q("validation_loss", "number", "training.validation_loss", "val_loss", "eval_loss", "valid_loss", "dev_loss",
       "validation_loss_epoch", "val_loss_epoch", "lm_loss_validation"),
    _q("learning_rate", "number", "training.learning_rate", "lr", "current_lr", "last_lr"),
    _q("gradient_norm", "number", "training.gradient_norm", "grad_norm", "total_norm", "total_grad_norm", "gradients_norm"),
    _q("clip_norm", "number", "training.clip_norm", "max_grad_norm", "gradient_clip_val"),
    _q("batch_size", "number", "training.batch_size", "bs", "batchsize", "num_samples", "samples"),
    _q("tokens", "number", "training.tokens", "num_tokens", "tokens_per_step", "tokens_per_batch"),
    _q("padded_tokens", "number", "training.padded_tokens"),
    _q("loss_scale", "number", "training.loss_scale", "grad_scale", "scaler_scale"),
    _q("skipped", "number", "training.skipped", "skipped_step"),
    _q("micro_batches", "whole", "training.micro_batches", "gradient_accumulation_steps", "num_micro_batches"),
    _q("samples_per_s", "number", "metrics.samples_per_s", "samples_per_second", "samples_per_sec", "samples_sec",
       "examples_per_second", "images_per_second", "images_per_sec", "train_samples_per_second"),
    _q("tokens_per_s", "number", "metrics.tokens_per_s", "tokens_per_second", "tokens_per_sec", "tokens_sec", "tps",
       "throughput_tps", "train_tokens_per_second"),
    _q("gpu_utilization", "share", "gpu_samples.utilization_share", "gpu_util", "gpu_usage", "gpu_utilisation", "gpu_load",
       "utilization_gpu", "gpu_gpu"),
    _q("gpu_memory_used", "bytes", "gpu_samples.memory_used_bytes", "gpu_mem_used", "gpu_memory", "gpu_mem", "gpu_memory_usage",
       "gpu_used_memory", "memory_used_gpu", "gpu_vram_used", "vram_used"),
    _q("gpu_memory_total", "bytes", "gpu_samples.memory_total_bytes", "gpu_mem_total", "gpu_total_memory", "vram_total"),
    _q("gpu_memory_free", "bytes", "gpu_samples.free", "gpu_mem_free", "gpu_free_memory", "vram_free"),
    _q("gpu_memory_used_share", "share", "gpu_samples.used_share", "gpu_memory_percent", "gpu_memory_usage_percent",
       "gpu_memory_usage_percentage", "gpu_mem_percent", "gpu_memory_used_percent"),
    _q("gpu_memory_bandwidth", "share", "gpu_samples.memory_utilization_share", "gpu_memory_controller_utilization"),
    _q("gpu_temperature", "celsius", "gpu_samples.temperature_c", "gpu_temp", "temperature_gpu"),
    _q("gpu_power", "watt", "gpu_samples.power_w", "gpu_power_usage", "gpu_power_draw", "power_draw_gpu"),
    _q("gpu_power_limit", "watt", "gpu_samples.power_limit_w", "gpu_enforced_power_limit"),
    _q("gpu_clock", "megahertz", "gpu_samples.sm_clock_mhz", "gpu_sm_clock", "sm_clock", "gpu_clock_sm", "gpu_core_clock"),
    _q("gpu_memory_allocated", "bytes", "allocator.allocated_bytes", "memory_allocated", "gpu_mem_allocated", "gpu_allocated",
       "gpu_allocated_memory", "cuda_memory_allocated", "allocated_bytes_all_current"),
    _q("gpu_memory_reserved", "bytes", "allocator.reserved_bytes", "memory_reserved", "gpu_mem_reserved", "gpu_reserved",
       "gpu_reserved_memory", "gpu_memory_cached", "cuda_memory_reserved", "reserved_bytes_all_current"),
    _q("gpu_memory_active", "bytes", "allocator.active_bytes", "active_bytes_all_current"),
    _q("gpu_memory_inactive_split", "bytes", "allocator.inactive_split_bytes", "inactive_split_bytes_all_current"),
    _q("gpu_memory_requested", "bytes", "allocator.requested_bytes", "requested_bytes_all_current"),
    _q("gpu_peak_memory_allocated", "bytes", "allocator.peak_allocated_bytes", "max_memory_allocated", "peak_memory_alloc",
       "peak_memory_allocated", "gpu_max_memory_allocated", "gpu_memory_peak", "peak_memory", "allocated_bytes_all_peak"),
    _q("gpu_peak_memory_reserved", "bytes", "allocator.peak_reserved_bytes", "max_memory_reserved", "peak_memory_reserved",
       "gpu_max_memory_reserved", "max_reserved", "reserved_bytes_all_peak"),
    _q("allocation_retries", "whole", "allocator.retries", "num_alloc_retries", "alloc_retries"),
    _q("out_of_memory_errors", "whole", "allocator.ooms", "num_ooms", "ooms"),
    _q("cpu_percent", "share", "host_samples.cpu_share", "cpu_utilization", "cpu_usage", "cpu_util", "cpu_load"),
    _q("process_cpu_percent", "share", "host_samples.own_cpu_cores", "proc_cpu_percent", "process_cpu"),
    _q("load_average", "number", "host_samples.load_1m", "load_1m", "loadavg", "load_avg", "load1", "load_average_1m"),
    _q("memory_percent", "share", "host_samples.used_share", "ram_percent", "memory_usage_percent", "mem_percent",
       "system_memory_usage_percentage", "virtual_memory_percent", "host_memory_percent", "memory_utilization"),
    _q("memory_used", "bytes", "host_samples.memory_bytes", "ram_used", "mem_used", "host_memory_used", "memory_usage",
       "system_memory_usage", "cpu_memory_used", "cpu_memory"),
    _q("memory_total", "bytes", "host_samples.memory_limit_bytes", "ram_total", "mem_total", "host_memory_total", "memory_limit"),
    _q("memory_available", "bytes", "host_samples.available", "ram_available", "mem_available", "host_memory_available"),
    _q("process_memory", "bytes", "host_samples.own_memory_bytes", "rss", "process_rss", "proc_memory_rss", "memory_rss"),
    _q("disk_read", "flow", "host_samples.disk_read_bytes_per_s", "disk_io_read", "disk_reads", "io_read", "disk_in"),
    _q("disk_write", "flow", "host_samples.disk_write_bytes_per_s", "disk_io_write", "disk_writes", "disk_written", "io_write",
       "disk_out"),
    _q("network_receive", "flow", "host_samples.network_receive_bytes_per_s", "network_io_recv", "network_recv", "net_recv",
       "network_received", "network_io_received", "net_io_recv", "network_rx", "net_rx", "network_in", "net_in"),
    _q("network_send", "flow", "host_samples.network_send_bytes_per_s", "network_io_sent", "network_sent", "net_sent",
       "net_io_sent", "network_tx", "net_tx", "network_out", "net_out", "network_transmit"),
    _q("cpu_pressure", "share", "host_samples.pressure_cpu_share"),
    _q("memory_pressure", "share", "host_samples.pressure_memory_share"),
    _q("io_pressure", "share", "host_samples.pressure_io_share"),
)
# fmt: on

BY_QUANTITY: Final = MappingProxyType({quantity.name: quantity for quantity in QUANTITIES})
BY_NAME: Final = MappingProxyType({synonym: quantity for quantity in reversed(QUANTITIES) for synonym in quantity.synonyms})

# In the input memory_snapshots these are the device's, in system_metrics the host's.
IN_SNAPSHOTS: Final = MappingProxyType(
    {
        **dict.fromkeys(("allocated", "allocated_memory", "current_allocated"), "gpu_memory_allocated"),
        **dict.fromkeys(("reserved", "reserved_memory", "cached", "current_reserved"), "gpu_memory_reserved"),
        **dict.fromkeys(("active", "active_memory"), "gpu_memory_active"),
        **dict.fromkeys(("peak_allocated", "max_allocated"), "gpu_peak_memory_allocated"),
        **dict.fromkeys(("peak_reserved", "max_reserved"), "gpu_peak_memory_reserved"),
        **dict.fromkeys(("used", "used_memory", "memory_used"), "gpu_memory_used"),
        **dict.fromkeys(("total", "total_memory", "memory_total"), "gpu_memory_total"),
        **dict.fromkeys(("free", "free_memory", "memory_free"), "gpu_memory_free"),
        **dict.fromkeys(("utilization",), "gpu_utilization"),
        **dict.fromkeys(("memory_percent", "used_percent"), "gpu_memory_used_share"),
    }
)

IN_SYSTEM: Final = MappingProxyType({"cpu": "cpu_percent", "ram": "memory_used", "memory": "memory_used"})
"""Names that are the host's in the input system_metrics, and could be anything in the others."""

_WANDB: Final = "wandb's reference of system metrics"
_MLFLOW: Final = "mlflow/system_metrics/metrics"
_TITAN: Final = "torchtitan/components/metrics.py"
_DEEPSPEED: Final = "deepspeed/runtime/engine.py, _write_monitor"

# Names as a tool writes them (# for the GPU's number), whose unit or meaning only that tool's code or manual tells.
EXACT: Final = MappingProxyType(
    {
        "system.gpu.#.gpu": ("gpu_utilization", "percent", _WANDB),
        "system.gpu.#.memory": ("gpu_memory_bandwidth", "percent", _WANDB),
        "system.gpu.#.memoryAllocated": ("gpu_memory_used_share", "percent", _WANDB),
        "system.gpu.#.memoryAllocatedBytes": ("gpu_memory_used", "B", _WANDB),
        "system.gpu.#.temp": ("gpu_temperature", "C", _WANDB),
        "system.gpu.#.powerWatts": ("gpu_power", "W", _WANDB),
        "system.gpu.#.enforcedPowerLimitWatts": ("gpu_power_limit", "W", _WANDB),
        "system.gpu.#.smClock": ("gpu_clock", "MHz", _WANDB),
        "system.cpu": ("cpu_percent", "percent", f"{_WANDB}: of the process, over all cores"),
        "system.memory": ("memory_percent", "percent", _WANDB),
        "system.memory_percent": ("memory_percent", "percent", _WANDB),
        "system.proc.memory.rssMB": ("process_memory", "MiB", _WANDB),
        "system.disk.in": ("disk_read", "MiB", _WANDB),
        "system.disk.out": ("disk_write", "MiB", _WANDB),
        "system.network.sent": ("network_send", "B", _WANDB),
        "system.network.recv": ("network_receive", "B", _WANDB),
        "_timestamp": ("timestamp", "s", "wandb: seconds since 1970"),
        "_runtime": ("timestamp", "s", "wandb: seconds since the run's start"),
        "system/gpu_#_utilization_percentage": ("gpu_utilization", "percent", _MLFLOW),
        "system/gpu_#_memory_usage_percentage": ("gpu_memory_used_share", "percent", _MLFLOW),
        "system/gpu_#_memory_usage_megabytes": ("gpu_memory_used", "MB", _MLFLOW),
        "system/gpu_#_power_usage_watts": ("gpu_power", "W", _MLFLOW),
        "system/cpu_utilization_percentage": ("cpu_percent", "percent", _MLFLOW),
        "system/system_memory_usage_megabytes": ("memory_used", "MB", _MLFLOW),
        "system/system_memory_usage_percentage": ("memory_percent", "percent", _MLFLOW),
        "system/network_receive_megabytes": ("network_receive", "MB", _MLFLOW),
        "system/network_transmit_megabytes": ("network_send", "MB", _MLFLOW),
        "time_metrics/end_to_end(s)": ("step_time", "s", _TITAN),
        "time_metrics/data_loading(s)": ("data_loading_time", "s", _TITAN),
        "memory/max_reserved(GiB)": ("gpu_peak_memory_reserved", "GiB", _TITAN),
        "iteration-time": ("step_time", "s", "Megatron-LM, megatron/training/training.py"),
        "Train/Samples/elapsed_time_ms_forward": ("forward_time", "ms", _DEEPSPEED),
        "Train/Samples/elapsed_time_ms_backward_inner": ("backward_time", "ms", _DEEPSPEED),
        "Train/Samples/elapsed_time_ms_backward_allreduce": ("communication_time", "ms", _DEEPSPEED),
        "Train/Samples/elapsed_time_ms_step": ("optimizer_time", "ms", _DEEPSPEED),
    }
)
