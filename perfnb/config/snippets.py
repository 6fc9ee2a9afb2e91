"""Code to paste for a knob that a config has no place for; text only, nothing of it is run here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_LOADER: Final = "loader = torch.utils.data.DataLoader(dataset, ..., {knob}={value})"
_DDP: Final = "model = torch.nn.parallel.DistributedDataParallel(model, ..., {knob}={value})"
_ALLOCATOR: Final = '# before the first CUDA allocation:\nos.environ["PYTORCH_CUDA_ALLOC_CONF"] = "{setting}"'

SNIPPETS: Final[Mapping[str, str]] = {
    "num_workers": _LOADER,
    "prefetch_factor": _LOADER,
    "batch_size": _LOADER,
    "pin_memory": _LOADER,
    "persistent_workers": _LOADER,
    "in_order": _LOADER,
    "drop_last": _LOADER,
    "bucket_cap_mb": _DDP,
    "find_unused_parameters": _DDP,
    "learning_rate": 'for group in optimizer.param_groups:\n    group["lr"] = {value}',
    "weight_decay": 'for group in optimizer.param_groups:\n    group["weight_decay"] = {value}',
    "momentum": 'for group in optimizer.param_groups:\n    group["momentum"] = {value}',
    "betas": 'for group in optimizer.param_groups:\n    group["betas"] = tuple({value})',
    "clip_norm": "torch.nn.utils.clip_grad_norm_(model.parameters(), {value})  # between backward() and step()",
    "gradient_accumulation_steps": "if (index + 1) % {value} == 0:  # and divide the loss by {value}\n    optimizer.step()\n"
    "    optimizer.zero_grad()",
    "non_blocking": "batch = batch.to(device, non_blocking={value})  # from pinned memory",
    "precision": "# bf16 or fp16: round forward pass and loss; fp16 also wants torch.amp.GradScaler\n"
    "with torch.autocast(device.type, dtype={dtype}):",
    "matmul_precision": "torch.set_float32_matmul_precision({value})",
    "compile": "model = torch.compile(model)",
    "compile_dynamic": "model = torch.compile(model, dynamic={value})",
    "cuda_graphs": 'model = torch.compile(model, mode="reduce-overhead")',
    "optimizer_implementation": "optimizer = torch.optim.AdamW(model.parameters(), ..., {word})",
    "optimizer": "# the optimizer of your script becomes {value}; for adamw_8bit:\n"
    "optimizer = bitsandbytes.optim.AdamW8bit(model.parameters(), ...)",
    "memory_format": "model = model.to(memory_format={word})\nimages = images.to(memory_format={word})",
    "attention": "model = AutoModel.from_pretrained(..., attn_implementation={value})\n"
    "# or call torch.nn.functional.scaled_dot_product_attention(query, key, value)",
    "backend": "torch.distributed.init_process_group({value})",
    "parallelism": "model = torch.nn.parallel.DistributedDataParallel(model)  # one process per device: torchrun",
    "sync_every_micro_batch": "with model.no_sync():  # round all micro-batches of an update but the last\n    loss.backward()",
    "gradient_compression": "from torch.distributed.algorithms.ddp_comm_hooks import default_hooks\n"
    "model.register_comm_hook(None, {word})",
    "activation_checkpointing": "output = torch.utils.checkpoint.checkpoint(block, input, use_reentrant=False)",
    "zero_stage": "# stage 1; stages 2 and 3 are FSDP's or DeepSpeed's\n"
    "optimizer = torch.distributed.optim.ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, ...)",
    "pipeline_split": "# layers per stage: {value}",
    "torch_num_threads": "torch.set_num_threads({value})",
    "gc_freeze": "gc.collect()\ngc.freeze()  # once, after model and loader are made",
    "checkpoint_every_n_steps": "if step % {value} == 0:\n    torch.save(...)",
    "async_checkpoint": "torch.distributed.checkpoint.async_save(...)",
    "log_every_n_steps": "if step % {value} == 0:\n    print(loss.item())",
    "empty_cache_every_n_steps": "# {value} (0: never) steps between calls of\ntorch.cuda.empty_cache()",
    "memory_fraction": "torch.cuda.set_per_process_memory_fraction({value})",
    "garbage_collection_threshold": _ALLOCATOR.format(setting="garbage_collection_threshold:{value}"),
    "roundup_power2_divisions": _ALLOCATOR.format(setting="roundup_power2_divisions:{value}"),
    "expandable_segments": _ALLOCATOR.format(setting="expandable_segments:True"),
    "group_by_length": "# a sampler that puts samples of like length together, as transformers' LengthGroupedSampler does",
    "pack_sequences": "# several short sequences per row, with an attention mask that keeps them apart",
    "balance_batches": "# a batch sampler that gives every rank batches of equal cost",
    "pad_to_multiple_of": "tokenizer.pad(..., pad_to_multiple_of={value})\n"
    "model.resize_token_embeddings(n, pad_to_multiple_of={value})  # where the vocabulary is what is misaligned",
    "cache_samples": "@functools.lru_cache(maxsize=None)  # on the part of __getitem__ that gives the same every time\n"
    "def load(index): ...",
    "data_root": "dataset = YourDataset(root={value})",
    "detach_logged_tensors": "losses.append(loss.detach())  # or loss.item(), at few steps",
    "max_steps": "# {value} steps",
    "decay_steps": "# over the last {value} steps, stepped once per step of the optimizer\n"
    "scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters={value})",
    "warmup_steps": "scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters={value})",
    "schedule": "# a schedule of kind {value} from torch.optim.lr_scheduler",
}
"""Knob to the code that sets it; the names are those of torch 2.13."""

_DTYPES: Final[Mapping[Any, str]] = {
    "bf16": "torch.bfloat16",
    "fp16": "torch.float16",
    "fp32": "torch.float32",
    "fp64": "torch.float64",
}
_WORDS: Final[Mapping[tuple[str, Any], str]] = {
    ("optimizer_implementation", "fused"): "fused=True",
    ("optimizer_implementation", "foreach"): "foreach=True",
    ("optimizer_implementation", "loop"): "foreach=False",
    ("memory_format", "channels_last"): "torch.channels_last",
    ("memory_format", "contiguous"): "torch.contiguous_format",
    ("gradient_compression", "bf16"): "default_hooks.bf16_compress_hook",
    ("gradient_compression", "fp16"): "default_hooks.fp16_compress_hook",
}
"""What PyTorch calls a value."""

_LONGEST: Final = 200


def snippet(knob: str, value: Any) -> str | None:
    """Code that sets a knob, as text to paste; None for a knob that perfnb does not know.

    Parameters
    ----------
    knob
        Canonical name.
    value
        The value, written as a literal: text from a config stays text.

    Examples
    --------
    >>> print(snippet("matmul_precision", "high"))
    torch.set_float32_matmul_precision('high')
    >>> snippet("no_such_knob", 1) is None
    True
    """
    template = SNIPPETS.get(knob)
    if template is None:
        return None
    if "{value}" not in template and _means_off(value, knob):
        template = template.replace("{dtype}", "...").replace("{word}", "...")
        return "\n".join(f"# leave out: {line}" for line in template.splitlines())
    word = _WORDS.get((knob, value), "...") if isinstance(value, str) else "..."
    dtype = _DTYPES.get(value, "...") if isinstance(value, str) else "..."
    for mark, text in (("{knob}", knob), ("{dtype}", dtype), ("{word}", word), ("{value}", _literal(value))):
        template = template.replace(mark, text)  # the value last: what it holds is never looked at again
    return template


def _means_off(value: Any, knob: str) -> bool:
    return (
        (knob, value) == ("precision", "fp32")
        or value is None
        or value is False
        or value in ("none", "off")
        or (type(value) is int and value == 0)
    )


def _literal(value: Any) -> str:
    """A value as Python writes it, in ASCII so that nothing in it turns the line around; a short stand-in for others."""
    if isinstance(value, (list, tuple)) and all(type(each) in (bool, int, float, str, type(None)) for each in value):
        text = ascii(list(value))
    elif value is None or type(value) in (bool, int, float, str):
        text = ascii(value)
    else:
        return "..."
    return text if len(text) <= _LONGEST else "..."
