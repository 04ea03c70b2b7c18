"""Products of matrices: igla's own where the processor has AVX-512, torch's elsewhere.

torch's library compiles each product for its numbers of rows and columns, 0.3 ms and 0.4 MB each,
and the batches of packed texts seldom have as many tokens as one before. igla's take any shape as
it comes, and are as fast as torch's or faster (docs/performance.md). Products of bf16 on a
processor with AMX are left to torch, which uses it. Results have the type of the inputs; sums are
float32 for bf16.
"""

import torch
from torch import Tensor

from igla.ops import native

_times_transposed = native.Kernel("times_transposed", "pppiii")
_times = native.Kernel("times", "pppiii")
_transposed_times = native.Kernel("transposed_times", "pppiii")


def are_native(dtype: torch.dtype) -> bool:
    """Whether products of this type on the processor are igla's own."""
    return dtype in native.SUFFIXES and _times.exists(dtype)


def usual_rows(rows: int) -> int:
    """The least number of rows, this one or more, of sixteen between a power of two and the next.

    What is compiled for each number of rows, which takes as long as some of the products and some
    megabytes where there is AMX, comes back soon if there are few.
    """
    step = 1 << max(0, rows.bit_length() - 5)
    return -(-rows // step) * step


def times_transposed(x_TI: Tensor, w_OI: Tensor) -> Tensor:
    """x·wᵀ [T, O]."""
    (rows, inner), columns = x_TI.shape, len(w_OI)
    if not _taken(x_TI, w_OI) or inner != w_OI.shape[1] or _cuts_a_word(x_TI):
        return x_TI @ w_OI.t()
    y_TO = x_TI.new_empty(rows, columns)
    _times_transposed(x_TI.dtype, x_TI, w_OI, y_TO, rows, inner, columns)
    return y_TO


def times(x_TO: Tensor, w_OI: Tensor) -> Tensor:
    """x·w [T, I]."""
    rows, inner, columns = *x_TO.shape, w_OI.shape[1]
    if not _taken(x_TO, w_OI) or inner != len(w_OI) or _cuts_a_word(x_TO):
        return x_TO @ w_OI
    y_TI = x_TO.new_empty(rows, columns)
    _times(x_TO.dtype, x_TO, w_OI, y_TI, rows, inner, columns)
    return y_TI


def transposed_times(x_TO: Tensor, y_TI: Tensor, out_OI: Tensor | None = None) -> Tensor:
    """xᵀ·y [O, I], written to `out` if that is given."""
    inner, rows, columns = *x_TO.shape, y_TI.shape[1]
    if out_OI is None:
        out_OI = x_TO.new_empty(rows, columns)
    if _taken(x_TO, y_TI, out_OI) and inner == len(y_TI) and out_OI.shape == (rows, columns):
        _transposed_times(x_TO.dtype, x_TO, y_TI, out_OI, inner, rows, columns)
        return out_OI
    return torch.mm(x_TO.t(), y_TI, out=out_OI)


def _taken(*tensors: Tensor) -> bool:
    return (
        native.runs(*tensors)
        and _times.exists(tensors[0].dtype)
        and all(tensor.is_contiguous() for tensor in tensors)
    )


def _cuts_a_word(x_TI: Tensor) -> bool:
    """Whether its rows are no whole number of 32 bits, which is how the kernels read them."""
    return x_TI.dtype == torch.bfloat16 and x_TI.shape[1] % 2 == 1
