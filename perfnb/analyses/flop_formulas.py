"""FLOP and bytes of operators from the shapes of their inputs; a multiplication and an addition are two FLOP."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

Shape = Sequence[int]
Shapes = Sequence[Shape]

# Names as torch writes them, c10/core/ScalarType.h and caffe2::TypeMeta: bytes per element and the name in Python.
DTYPES: Final[Mapping[str, tuple[str, int]]] = MappingProxyType(
    {
        "float": ("float32", 4),
        "double": ("float64", 8),
        "c10::Half": ("float16", 2),
        "c10::BFloat16": ("bfloat16", 2),
        "c10::Float8_e4m3fn": ("float8_e4m3fn", 1),
        "c10::Float8_e5m2": ("float8_e5m2", 1),
        "c10::Float8_e4m3fnuz": ("float8_e4m3fnuz", 1),
        "c10::Float8_e5m2fnuz": ("float8_e5m2fnuz", 1),
        "signed char": ("int8", 1),
        "unsigned char": ("uint8", 1),
        "int": ("int32", 4),
        "long": ("int64", 8),
        "long int": ("int64", 8),
    }
)


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOP of a call and elements that it reads and writes; None and the reason where the shapes do not tell."""

    flops: int | None
    elements: int | None
    reason: str = ""


class ShapeMismatchError(ValueError):
    """Input shapes do not fit the operator."""


def matrix_product(left: Shape, right: Shape, *more: Shape) -> Cost:
    """Product of two matrices, or of two batches of them, plus an addend.

    torch.utils.flop_counter, mm_flop, addmm_flop and bmm_flop: 2 m n k per matrix; the addend counts nothing.

    Examples
    --------
    >>> matrix_product([8, 16], [16, 4])
    Cost(flops=1024, elements=224, reason='')
    """
    if len(left) != len(right) or len(left) < 2 or left[-1] != right[-2] or left[:-2] != right[:-2]:  # noqa: PLR2004 - rows, columns
        raise ShapeMismatchError
    batch, rows, inner, columns = math.prod(left[:-2]), left[-2], left[-1], right[-1]
    written = batch * rows * columns
    return Cost(2 * written * inner, batch * inner * (rows + columns) + written + sum(math.prod(each) for each in more))


def linear(inputs: Shape, weight: Shape, *bias: Shape) -> Cost:
    """Linear layer: the product with the transposed weight, over all leading dimensions."""
    if len(weight) != 2 or not inputs or inputs[-1] != weight[1]:  # noqa: PLR2004 - outputs, inputs
        raise ShapeMismatchError
    return matrix_product([math.prod(inputs[:-1]), inputs[-1]], [weight[1], weight[0]], *bias)


def convolution(inputs: Shape, weight: Shape, output: Shape, *bias: Shape) -> Cost:
    """Convolution, not transposed, whose output shape is known.

    torch.utils.flop_counter, conv_flop_count: 2 x batch x output positions x all weights.
    """
    if len(inputs) != len(weight) or len(output) != len(inputs) or output[:2] != [inputs[0], weight[0]]:
        raise ShapeMismatchError
    flops = 2 * inputs[0] * math.prod(output[2:]) * math.prod(weight)
    return Cost(flops, sum(math.prod(each) for each in (inputs, weight, output, *bias)))


def attention(query: Shape, key: Shape, value: Shape) -> Cost:
    """Scaled dot product attention, all of it, causal or not.

    torch.utils.flop_counter, sdpa_flop_count: the product of query and key, and that of the scores and value. With fewer heads
    of key and value than of query (grouped queries) each head of query still does its products.
    """
    batch, heads, queries, width, keys, value_width = _attention(query, key, value)
    flops = 2 * batch * heads * queries * keys * (width + value_width)
    written = batch * heads * queries * value_width
    return Cost(flops, sum(math.prod(each) for each in (query, key, value)) + written)


def attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape) -> Cost:
    """Backward of scaled dot product attention.

    torch.utils.flop_counter, sdpa_backward_flop_count: scores again, then the gradients of scores, value, query and key. Reads
    gradient, query, key, value and output, writes three gradients.
    """
    batch, heads, queries, width, keys, value_width = _attention(query, key, value)
    flops = 2 * batch * heads * queries * keys * (3 * width + 2 * value_width)
    inputs = sum(math.prod(each) for each in (query, key, value))
    return Cost(flops, 2 * inputs + 2 * math.prod(gradient))


def _attention(query: Shape, key: Shape, value: Shape) -> tuple[int, int, int, int, int, int]:
    if not len(query) == len(key) == len(value) == 4 or query[3] != key[3] or key[2] != value[2] or query[0] != key[0]:  # noqa: PLR2004
        raise ShapeMismatchError
    batch, heads, queries, width = query
    return batch, heads, queries, width, key[2], value[3]


Formula = Callable[..., Cost]

# Operator -> family, formula, and positions of the inputs that the formula takes; "?": may be absent.
FORMULAS: Final[Mapping[str, tuple[str, Formula, tuple[int, ...], tuple[int, ...]]]] = MappingProxyType(
    {
        "aten::mm": ("matmul", matrix_product, (0, 1), ()),
        "aten::_int_mm": ("matmul", matrix_product, (0, 1), ()),
        "aten::_scaled_mm": ("matmul", matrix_product, (0, 1), ()),
        "aten::bmm": ("matmul", matrix_product, (0, 1), ()),
        "aten::addmm": ("matmul", matrix_product, (1, 2), (0,)),
        "aten::addmm_": ("matmul", matrix_product, (1, 2), (0,)),
        "aten::_addmm_activation": ("matmul", matrix_product, (1, 2), (0,)),
        "aten::baddbmm": ("matmul", matrix_product, (1, 2), (0,)),
        "aten::baddbmm_": ("matmul", matrix_product, (1, 2), (0,)),
        "aten::scaled_dot_product_attention": ("attention", attention, (0, 1, 2), ()),
        "aten::_scaled_dot_product_flash_attention": ("attention", attention, (0, 1, 2), ()),
        "aten::_scaled_dot_product_efficient_attention": ("attention", attention, (0, 1, 2), ()),
        "aten::_scaled_dot_product_cudnn_attention": ("attention", attention, (0, 1, 2), ()),
        "aten::_scaled_dot_product_flash_attention_for_cpu": ("attention", attention, (0, 1, 2), ()),
        "aten::_scaled_dot_product_flash_attention_backward": ("attention", attention_backward, (0, 1, 2, 3), ()),
        "aten::_scaled_dot_product_efficient_attention_backward": ("attention", attention_backward, (0, 1, 2, 3), ()),
        "aten::_scaled_dot_product_cudnn_attention_backward": ("attention", attention_backward, (0, 1, 2, 3), ()),
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward": ("attention", attention_backward, (0, 1, 2, 3), ()),
        "aten::conv1d": ("convolution", convolution, (0, 1), (2,)),
        "aten::conv2d": ("convolution", convolution, (0, 1), (2,)),
        "aten::conv3d": ("convolution", convolution, (0, 1), (2,)),
        "aten::convolution": ("convolution", convolution, (0, 1), (2,)),
        "aten::_convolution": ("convolution", convolution, (0, 1), (2,)),
        "aten::cudnn_convolution": ("convolution", convolution, (0, 1), ()),
        "aten::miopen_convolution": ("convolution", convolution, (0, 1), (2,)),
        "aten::mkldnn_convolution": ("convolution", convolution, (0, 1), (2,)),
        "aten::convolution_backward": ("convolution", convolution, (1, 2), ()),
        "aten::linear": ("matmul", linear, (0, 1), (2,)),
    }
)

BACKWARD_CONVOLUTION: Final = "aten::convolution_backward"
LAST_RESORT: Final = frozenset({"aten::linear"})
"""Counted only where no counted operator lies inside."""
