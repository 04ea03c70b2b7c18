"""Integrated gradients of a classifier's probabilities along its words' embeddings.

Shape suffixes: T tokens of the text, P points of the path, R = P·T, H hidden size, C classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from igla.data.batch import PackedBatch, pack
from igla.infer.classifier import Classifier


class PathGradients(nn.Module):
    """Slopes at points of the straight path from hidden words to a text's own.

    With w a token's embedding, b that of the mask (of nothing where there is none), and p the
    probabilities, integrated gradients (Sundararajan, Taly & Yan 2017, equation 1) are
        (w − b) · ∫₀¹ ∂p/∂x at x = b + α (w − b) dα,
    summed over the embedding; over the tokens their sum is p(text) − p(hidden text).

    hides   [T] bool, the tokens that the path hides; the others stay as they are
    shares  the α of these points; the integral is the mean over those of the whole path
    """

    hides: Tensor
    shares: Tensor

    def __init__(
        self, classifier: Classifier, mask: int | None, hides: np.ndarray, shares: Sequence[float]
    ):
        super().__init__()
        self.model = classifier.model
        self.rule = classifier.rule
        self.mask = mask
        self.register_buffer("hides", torch.from_numpy(hides)[:, None], persistent=False)
        self.register_buffer("shares", torch.tensor(shares), persistent=False)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Of a batch of one text: (w − b) times the slopes, summed over H and the points
        [1, T, C]."""
        # The engine computes without gradients, and nothing made there can take part in one.
        with torch.inference_mode(False), torch.enable_grad():
            points = len(self.shares)
            packed = pack([batch.tokens.numpy(force=True)] * points).to(batch.tokens.device)
            way_RH = self._way(packed)
            shares_R1 = self.shares.clone().repeat_interleave(len(batch.tokens))[:, None]
            nudge_RH = ((shares_R1 - 1) * way_RH).requires_grad_()
            logits_PC = self.model.classify(self.model.represent(packed, nudge_RH))
            sums_C = self._probabilities(logits_PC.float()).sum(0)
            slopes = [
                torch.autograd.grad(one, nudge_RH, retain_graph=True)[0].float() for one in sums_C
            ]
            effects_RC = torch.stack([(slope_RH * way_RH).sum(1) for slope_RH in slopes], 1)
            return effects_RC.view(points, len(batch.tokens), -1).sum(0)[None]

    @torch.no_grad()
    def _way(self, packed: PackedBatch) -> Tensor:
        """w − b [R, H], and zeros where nothing is hidden."""
        embeddings = self.model.encoder.embeddings
        words_RH = embeddings.word(packed.tokens)
        if embeddings.ngrams is not None:
            words_RH = words_RH + embeddings.ngrams(packed)
        hidden_H = 0.0 if self.mask is None else embeddings.word.weight[self.mask]
        hides_R1 = self.hides.clone().repeat(len(self.shares), 1)
        return torch.where(hides_R1, words_RH - hidden_H, torch.zeros_like(words_RH))

    def _probabilities(self, logits_PC: Tensor) -> Tensor:
        scaled_PC = logits_PC / self.rule.temperature
        return scaled_PC.sigmoid() if self.rule.multi_label else scaled_PC.softmax(-1)


def midpoints(count: int) -> list[float]:
    """Points of a path by the midpoint rule."""
    return [(index + 0.5) / count for index in range(count)]
