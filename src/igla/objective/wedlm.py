"""Learning to fill hidden words under causal attention, for decoding by WeDLM."""

from dataclasses import dataclass
from typing import Any

import torch

from igla.data.batch import PackedBatch
from igla.objective.base import Loss
from igla.objective.dual_stream import attend_to_both, masked_stream
from igla.ops.cross_entropy import head_cross_entropy
from igla.ops.native import accumulator

BLOCK = 32


@dataclass(frozen=True)
class Wedlm:
    """Guess hidden words from what is seen, and the next word as before (Liu et al. 2025, arXiv
    2512.22737).

    With the tokens to be learned in blocks, and a share γ of block k hidden:

        Σ_k 1/γ_k · Σ_{i hidden in k} −log p(x_i | clean tokens before k, what is seen of k)
        + Σ_i −log p(x_i | x_{<i})

    A mask guesses the token at its own position, a clean token the one after it; both by the same
    head. `count` is the number of tokens to be learned, which each sum counts once: γ is m/n for m
    of n hidden, so that a block weighs as much as it has tokens, however many are hidden.

    mask_token_id  what stands for a hidden word
    size           of a block; at generation no window should be larger
    """

    mask_token_id: int
    size: int = BLOCK

    def loss(self, model: Any, batch: PackedBatch) -> Loss:
        """Loss of a model.decoder.Decoder; batch.targets [T] says which tokens are learned, None:
        all but each sequence's first."""
        tokens_T = batch.tokens
        learned_T = batch.positions > 0
        if batch.targets is not None:
            learned_T &= batch.targets
        stream = masked_stream(batch, learned_T, self.size)
        attend = attend_to_both(batch, stream, model.config)
        x_TH = model(
            torch.cat([tokens_T, stream.tokens(tokens_T, self.mask_token_id)]),
            torch.cat([batch.positions, batch.positions[stream.source]]),
            attend,
        )
        hidden_M = stream.masked.nonzero()[:, 0]
        words_M = tokens_T[stream.source[hidden_M]]
        head, x_MH = model.head_weight, x_TH[len(tokens_T) + hidden_M]
        weights_M = 1 / stream.share[stream.block[hidden_M]]
        masked = head_cross_entropy(x_MH, head, words_M, weights_M.to(accumulator(x_MH.dtype)))
        next_R = tokens_T[stream.source]
        following = head_cross_entropy(x_TH[stream.source - 1], head, next_R)
        parts = {"masked": masked.detach(), "autoregressive": following.detach()}
        count = torch.tensor(len(next_R), device=masked.device)
        return Loss(masked + following, count, parts)
