"""Linear attention with decay over packed sequences: chunk by chunk, or token by token.

Each head keeps a matrix S [K, V] that forgets by a factor a in (0, 1] and learns one pair of key
and value a token; the query reads it:

    S_t = a_t ∘ S_{t−1} + k_t·v_tᵀ,  o_t = S_tᵀ·q_t

with a vector a_t [K] for each head in gated linear attention (Yang et al. 2023, equation 3), and a
number in Mamba-2 (Dao & Gu 2024, equation 16). With b_t = Σ log a, summed from the start of the
chunk that t is in, and S that before the chunk,

    o_i = Sᵀ·(q_i∘e^{b_i}) + Σ_{j≤i} (q_i∘e^{b_i−b_j})·k_j v_j
    S′  = e^{b_C}∘S + Σ_j (k_j∘e^{b_C−b_j})·v_jᵀ

(their equations 6 and 5; sections 6 and 7 of the latter), which is products of matrices within
chunks and a short recurrence from chunk to chunk. No chunk crosses a sequence's border, so each
sequence starts from its own state. Computed in float32 at least.

Shape suffixes: T tokens in all, B sequences, G chunks, C tokens of a chunk, N heads, K width of
keys, V width of values.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 64
# Least log a of a decay that is a vector. Within a chunk e^{b_i−b_j} is then a product of e^{b_i−m}
# and e^{m−b_j} that are at most e^32 each, with m from the chunk's middle: float32 holds that.
LEAST_LOG_DECAY = -1.0


@dataclass(frozen=True)
class Chunks:
    """How packed sequences are cut.

    grid   [G, C] int64, which token fills each cell; past a chunk's end, its last one
    real   [G, C] bool, which cells hold a token of their own
    cells  [T] int64, the cell of each token, counted along the rows
    first  the numbers of the chunks that begin a sequence, in order
    """

    grid: Tensor
    real: Tensor
    cells: Tensor
    first: tuple[int, ...]


def cut_into_chunks(cu_seqlens: Tensor, size: int | None = None) -> Chunks:
    """Each sequence in chunks of `size` tokens, the last of which may be shorter; None: CHUNK, but
    no more than the longest sequence has."""
    lengths_B = cu_seqlens.diff()
    if not bool((lengths_B > 0).all()):
        raise ValueError("A sequence has no tokens.")
    size = size or min(CHUNK, int(lengths_B.max()))
    counts_B = (lengths_B + size - 1) // size
    first_B = counts_B.cumsum(0) - counts_B
    of_G = torch.repeat_interleave(counts_B)
    start_G = (torch.arange(len(of_G), device=of_G.device) - first_B[of_G]) * size
    left_G = lengths_B[of_G] - start_G
    columns_C = torch.arange(size, device=of_G.device)
    real_GC = columns_C < left_G[:, None]
    inside_GC = torch.minimum(columns_C, left_G[:, None] - 1)
    grid_GC = (cu_seqlens[:-1][of_G] + start_G)[:, None] + inside_GC
    return Chunks(grid_GC, real_GC, real_GC.flatten().nonzero()[:, 0], tuple(first_B.tolist()))


def decayed_attention(
    q_TNK: Tensor,
    k_TNK: Tensor,
    v_TNV: Tensor,
    log_decay_TN: Tensor,
    chunks: Chunks,
    states_BNKV: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What all tokens read [T, N, V], and each sequence's state after its last token [B, N, K, V].

    q, k       may have one head for all N of the values
    log_decay  log a ≤ 0: [T, N], or [T, N, K] and then at least LEAST_LOG_DECAY
    states     each sequence's before its first token; None: zeros
    """
    dtype = torch.promote_types(q_TNK.dtype, torch.float32)
    each = log_decay_TN.ndim == 3
    real = chunks.real[:, None, :, None]
    q_GNCK, k_GNCK, v_GNCV = (
        x[chunks.grid].transpose(1, 2).to(dtype) for x in (q_TNK, k_TNK, v_TNV)
    )
    k_GNCK = k_GNCK * real  # cells without a token of their own teach nothing and forget nothing
    decay_TNK = log_decay_TN if each else log_decay_TN[..., None]
    b_GNCK = (decay_TNK[chunks.grid].transpose(1, 2).to(dtype) * real).cumsum(2)
    end_GN1K = b_GNCK[:, :, -1:]
    scores_GNCC = (_scores_by_vector if each else _scores_by_number)(q_GNCK, k_GNCK, b_GNCK)
    learned_GNKV = (k_GNCK * (end_GN1K - b_GNCK).exp()).transpose(2, 3) @ v_GNCV
    if states_BNKV is None:
        states_BNKV = learned_GNKV.new_zeros(len(chunks.first), *learned_GNKV.shape[1:])
    before_GNKV, after_BNKV = _Scan.apply(
        end_GN1K.exp().transpose(2, 3), learned_GNKV, states_BNKV.to(dtype), chunks.first
    )
    out_GNCV = scores_GNCC.tril() @ v_GNCV + (q_GNCK * b_GNCK.exp()) @ before_GNKV
    out_TNV = out_GNCV.transpose(1, 2).flatten(0, 1)[chunks.cells]
    return out_TNV, after_BNKV


def decayed_step(
    q_BNK: Tensor, k_BNK: Tensor, v_BNV: Tensor, log_decay_BN: Tensor, states_BNKV: Tensor
) -> tuple[Tensor, Tensor]:
    """One token of each sequence: what it reads [B, N, V], and the states after it."""
    each = log_decay_BN.ndim == 3
    decay_BNK1 = log_decay_BN[..., None] if each else log_decay_BN[..., None, None]
    q_BNK, k_BNK, v_BNV, decay_BNK1 = (
        x.to(states_BNKV.dtype) for x in (q_BNK, k_BNK, v_BNV, decay_BNK1)
    )
    states_BNKV = decay_BNK1.exp() * states_BNKV + k_BNK[..., None] * v_BNV[..., None, :]
    return (q_BNK[..., None, :] @ states_BNKV).squeeze(-2), states_BNKV


def _scores_by_vector(q_GNCK: Tensor, k_GNCK: Tensor, b_GNCK: Tensor) -> Tensor:
    """Σ_K q_i k_j e^{b_i−b_j} [G, N, C, C], finite but meaningless above the diagonal."""
    shifted_GNCK = b_GNCK - b_GNCK[:, :, b_GNCK.shape[2] // 2, None]
    return (q_GNCK * shifted_GNCK.exp()) @ (k_GNCK * (-shifted_GNCK).exp()).transpose(2, 3)


def _scores_by_number(q_GNCK: Tensor, k_GNCK: Tensor, b_GNC1: Tensor) -> Tensor:
    """The same for a decay of one number a head, of any size."""
    apart_GNCC = (b_GNC1 - b_GNC1.transpose(2, 3)).clamp(max=0)  # above 0 over the diagonal alone
    return (q_GNCK @ k_GNCK.transpose(2, 3)) * apart_GNCC.exp()


class _Scan(torch.autograd.Function):
    """From chunk to chunk: S′ = d∘S + U, where S begins a sequence at a state of its own.

    Of d [G, N, K, 1] (or [G, N, 1, 1]), U [G, N, K, V] and states [B, N, K, V] it gives S before
    each chunk, and after each sequence. For their gradients, with g′ that of a chunk's S′:

        dU = g′,  dd = Σ_V g′∘S,  and g = dS + d∘g′ is that of the S′ of the chunk before it,

    or, where the chunk begins a sequence, of the state it began at.
    """

    @staticmethod
    def forward(
        ctx: Any, decay: Tensor, learned: Tensor, states: Tensor, first: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        before, after = torch.empty_like(learned), torch.empty_like(states)
        for sequence, (start, end) in enumerate(_spans(first, len(learned))):
            state = states[sequence]
            for chunk in range(start, end):
                before[chunk] = state
                state = torch.addcmul(learned[chunk], decay[chunk], before[chunk])
            after[sequence] = state
        ctx.first = first
        ctx.save_for_backward(decay, before)
        return before, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dbefore: Tensor, dafter: Tensor) -> tuple[Tensor | None, ...]:
        decay, before = ctx.saved_tensors
        dlearned, dstates = torch.empty_like(before), torch.empty_like(dafter)
        for sequence, (start, end) in enumerate(_spans(ctx.first, len(before))):
            gradient = dafter[sequence]
            for chunk in reversed(range(start, end)):
                dlearned[chunk] = gradient
                gradient = torch.addcmul(dbefore[chunk], decay[chunk], dlearned[chunk])
            dstates[sequence] = gradient
        ddecay = (dlearned * before).sum(-1, keepdim=True)
        return ddecay.sum_to_size(decay.shape), dlearned, dstates, None


def _spans(first: tuple[int, ...], chunks: int) -> list[tuple[int, int]]:
    """Of each sequence's chunks."""
    return list(zip(first, (*first[1:], chunks), strict=True))
