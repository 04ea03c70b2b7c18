"""Contrastive learning of sentence embeddings."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from igla.data.batch import PackedBatch
from igla.objective.base import Loss


@dataclass(frozen=True)
class Contrastive:
    """Find a sequence again among a batch (unsupervised SimCSE: Gao et al. 2021, equation 4).

    Each sequence goes through twice, with other elements dropped: embeddings h and h'. The loss is
    Σ_i −log (e^(h_i·h'_i/τ) / Σ_j e^(h_i·h'_j/τ)), divided by the number of sequences: the others
    of the batch are what it is not to be taken for.

    temperature  τ
    """

    temperature: float

    def loss(self, model: Any, batch: PackedBatch) -> Loss:
        """Loss of a model.embedding.SentenceEncoder."""
        one_BH, other_BH = model(batch), model(batch)
        scores_BB = one_BH @ other_BH.T / self.temperature
        itself_B = torch.arange(len(one_BH), device=one_BH.device)
        found = (scores_BB.detach().argmax(dim=1) == itself_B).sum()
        total = F.cross_entropy(scores_BB, itself_B, reduction="sum")
        return Loss(total, torch.tensor(len(one_BH), device=total.device), {"found": found})
