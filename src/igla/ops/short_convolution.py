"""A causal convolution over a few tokens, each channel by itself, on packed sequences.

Shape suffixes: T tokens in all, B sequences, C channels, W width of the convolution.
"""

import torch
from torch import Tensor


def convolve(
    x_TC: Tensor, weight_CW: Tensor, cu_seqlens: Tensor, before_BWC: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y_t = Σ_w weight_w·x_{t−W+1+w} [T, C], and each sequence's last W − 1 inputs [B, W−1, C].

    before  each sequence's last W − 1 inputs before these; None: zeros
    """
    width, sequences = weight_CW.shape[1], len(cu_seqlens) - 1
    past = width - 1
    if before_BWC is None:
        before_BWC = x_TC.new_zeros(sequences, past, x_TC.shape[1])
    # Each sequence's inputs after those before them, as rows of one table.
    lengths_B = cu_seqlens.diff()
    numbers_B = torch.arange(sequences, device=x_TC.device)
    at_T = torch.arange(len(x_TC), device=x_TC.device)
    at_T = at_T + past * (1 + torch.repeat_interleave(numbers_B, lengths_B))
    first_B = cu_seqlens[:-1] + past * numbers_B
    steps_W = torch.arange(past, device=x_TC.device)
    table = x_TC.new_empty(len(x_TC) + past * sequences, x_TC.shape[1])
    table = table.index_copy(0, (first_B[:, None] + steps_W).flatten(), before_BWC.flatten(0, 1))
    table = table.index_copy(0, at_T, x_TC)
    weight_WC = weight_CW.to(x_TC.dtype).t()
    y_TC = sum(weight_WC[w] * table[at_T - past + w] for w in range(width))
    assert isinstance(y_TC, Tensor)
    after_B = cu_seqlens[1:] + past * (1 + numbers_B)
    return y_TC, table[after_B[:, None] - past + steps_W]
