"""Fix: keep images in channels-last memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_FIRST: Final = r"^\[\[([0-9, ]+)\]"  # sizes of the first input
_COMMAS_OF_IMAGES: Final = 3  # batch, channels, height, width


def _convolving(shape: str) -> Run:
    header = "rank process thread category name start_us duration_us input_shapes"
    row = f"0 1 1 operator aten::conv2d 0 9 [{shape},[8,3,3,3]]"
    return Run(host_ops=table_from_text("host_ops", f"{header}\n{row}"), signals=frozenset({"host_ops"}))


@fix(
    knobs=("memory_format",),
    answers=("layout_conversion",),
    reason="tensor cores convolve channels-last images, so that none has to be converted",
    source="PyTorch documentation, channels-last memory format; NVIDIA convolution guide",
    caution="model and batches both: model.to(memory_format=torch.channels_last); not validated on a GPU",
    examples=(
        FixExample("contiguous", {"memory_format": "contiguous"}, {"memory_format": "channels_last"}),
        FixExample(
            "images",
            {"memory_format": "contiguous"},
            {"memory_format": "channels_last"},
            make_run=lambda: _convolving("[2,3,8,8]"),
        ),
        FixExample("set already", {"memory_format": "channels_last"}, None, "already"),
        FixExample(
            "sequences",
            {"memory_format": "contiguous"},
            None,
            "no convolution of images",
            make_run=lambda: _convolving("[2,3,8]"),
        ),
    ),
)
def use_channels_last(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Set the memory format, unless all convolutions whose shapes were recorded are of something else than images."""
    if value_of(config, "memory_format") == "channels_last":
        return "memory_format is channels_last already"
    names = run.host_ops["name"].astype("string").str.contains("conv", case=False).fillna(value=False)
    shapes = run.host_ops.loc[names.to_numpy(dtype=bool), "input_shapes"].astype("string").dropna()
    first = shapes.str.extract(_FIRST, expand=False).dropna()
    if len(first) and not first.str.count(",").eq(_COMMAS_OF_IMAGES).any():
        return "no convolution of images was recorded"
    return {"memory_format": "channels_last"}
