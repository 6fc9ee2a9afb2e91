"""Which operators a dry run sees whole: those whose kernels take no memory beyond what they are given and give back."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Literal

Kind = Literal["modelled", "workspace", "unknown"]

_WORKSPACE: Final = ("convolution", "fft", "linalg", "conv_", "thnn_conv", "slow_conv")
"""Parts of names whose kernels take scratch memory that depends on the device's library: level D."""

_OPAQUE: Final = ("rnn", "lstm", "gru_", "_gru")
"""Parts of names whose kernels keep memory that the dry run is 50 % and more wrong about: Unknown without a measured peak."""

_FUSED_ATTENTION: Final = "scaled_dot_product"
_NO_MEMORY: Final = ("profiler", "prim")

PRODUCTS: Final = ("mm", "bmm", "addmm", "baddbmm", "dot", "mv", "addmv")
"""Products of matrices; in 16 bits their kernels on the CPU copy operands."""

_SEEN_WHOLE: Final = frozenset(
    (
        # made from nothing
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full"),
        *("zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "arange", "eye", "scalar_tensor", "lift_fresh"),
        *("rand", "randn", "randint", "rand_like", "randn_like", "linspace", "tril", "triu", "lift_fresh_copy"),
        *("uniform_", "normal_", "bernoulli_", "zero_", "fill_", "random_", "erfinv_", "trunc_normal_", "randint_like"),
        # copies and joins
        *("clone", "copy_", "_to_copy", "cat", "stack", "contiguous", "select_backward", "slice_backward", "constant_pad_nd"),
        *("_unsafe_view", "repeat", "where", "masked_fill", "masked_fill_", "set_", "copy", "roll", "flip"),
        # products
        *PRODUCTS,
        # reductions
        *("sum", "mean", "amax", "amin", "var", "var_mean", "std", "max", "min", "any", "all", "prod", "argmax", "argmin"),
        *("logsumexp", "linalg_vector_norm", "norm"),
        # layers and losses
        *("_softmax", "_softmax_backward_data", "_log_softmax", "_log_softmax_backward_data"),
        *("nll_loss_forward", "nll_loss_backward", "nll_loss2d_forward", "nll_loss2d_backward", "binary_cross_entropy"),
        *("binary_cross_entropy_backward", "mse_loss", "mse_loss_backward", "smooth_l1_loss", "smooth_l1_loss_backward"),
        *("native_layer_norm", "native_layer_norm_backward", "native_group_norm", "native_group_norm_backward"),
        *("native_batch_norm", "native_batch_norm_backward", "_native_batch_norm_legit"),
        *("_fused_rms_norm", "_fused_rms_norm_backward", "native_dropout", "native_dropout_backward", "dropout"),
        *("embedding", "embedding_dense_backward", "gather", "threshold_backward", "threshold", "relu", "relu_", "gelu"),
        *("gelu_backward", "silu", "silu_", "silu_backward", "glu", "glu_backward", "leaky_relu_backward"),
        *("sigmoid_backward", "tanh_backward", "hardtanh_backward", "elu_backward", "softplus_backward", "hardswish_backward"),
        *("avg_pool2d", "avg_pool2d_backward", "max_pool2d_with_indices", "max_pool2d_with_indices_backward"),
        *("_adaptive_avg_pool2d", "_adaptive_avg_pool2d_backward", "upsample_nearest2d", "upsample_nearest2d_backward"),
        # values that the dry run knows without computing
        "_local_scalar_dense",
    )
)
"""Base names of aten's operators; element-wise ones and views are told by their tags and schemas."""


class OperatorCounts:
    """How often each operator ran, by what the dry run knows of its memory."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Kind]] = Counter()
        self.narrow_products: set[str] = set()
        self._kinds: dict[Any, tuple[str, Kind] | None] = {}

    def count(self, operator: Any, *, is_narrow: bool) -> None:
        """One more call; `is_narrow` where its result has 16 bits or fewer."""
        if operator not in self._kinds:
            self._kinds[operator] = _kind_of(operator)
        kind = self._kinds[operator]
        if kind is not None:
            self.counts[kind] += 1
            if is_narrow and kind[0].partition("::")[2] in PRODUCTS:
                self.narrow_products.add(kind[0])

    def names(self, kind: Kind) -> list[str]:
        """Operators of one kind."""
        return sorted(name for name, own in self.counts if own == kind)

    @property
    def fused_attention(self) -> list[str]:
        """Attention in one kernel: on CUDA another one than on the CPU."""
        return sorted(name for name, _ in self.counts if _FUSED_ATTENTION in name)


def _kind_of(operator: Any) -> tuple[str, Kind] | None:
    """Name and kind of an operator; None where it takes no memory."""
    space, _, name = str(getattr(operator, "_name", operator)).partition(".")[0].partition("::")
    if space in _NO_MEMORY:
        return None
    full = f"{space}::{name}" if name else space
    if any(part in name for part in _OPAQUE) or space not in ("aten", "prims"):
        return full, "unknown"
    if _FUSED_ATTENTION in name:
        return full, "modelled"
    if any(part in name for part in _WORKSPACE) and name not in _SEEN_WHOLE:
        return full, "workspace"
    if name in _SEEN_WHOLE or name.startswith(("_foreach_", "_fused_adam")) or name == "_fused_sgd_":
        return full, "modelled"
    return full, "modelled" if _is_pointwise(operator) or _is_view(operator) else "workspace"


def _is_pointwise(operator: Any) -> bool:
    import torch  # noqa: PLC0415 - analysis of files runs without it

    return torch.Tag.pointwise in getattr(operator, "tags", ())


def _is_view(operator: Any) -> bool:
    """Whether its results share the storage of an argument, as its schema says."""
    schema = getattr(operator, "_schema", None)
    return schema is not None and len(schema.returns) > 0 and all(one.alias_info is not None for one in schema.returns)
