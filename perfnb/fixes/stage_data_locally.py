"""Fix: read samples from a local copy of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("data_root",),
    answers=("slow_sample_read", "cold_cache", "input_straggler"),
    reason="a local disk, or memory, answers sooner than a network or a disk that others use",
    source="MosaicML Streaming documentation: StreamingDataset(remote=..., local=...) keeps a local copy of what it reads",
    caution="the copy takes time and space of its own; how fast local reads are is not known before they are timed",
    examples=(
        FixExample(
            "a local folder is named",
            {"data_root": "/mnt/share/set", "local_data_root": "/scratch/set"},
            {"data_root": "/scratch/set"},
        ),
        FixExample("no local folder is named", {"data_root": "/mnt/share/set"}, None, "local_data_root"),
        FixExample("local already", {"data_root": "/scratch/set", "local_data_root": "/scratch/set"}, None, "already"),
    ),
)
def stage_data_locally(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Set `data_root` to the folder that the config names as `local_data_root`."""
    if not has_knob(config, "local_data_root"):
        return "no local folder is named: add local_data_root to the config"
    return {"data_root": value_of(config, "local_data_root")}
