"""Distillation of an encoder from a larger one.

Shape suffixes: T tokens in all, B sequences, H hidden size of the teacher.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from igla.data.batch import PackedBatch
from igla.model.embedding import relations
from igla.model.encoder import Encoder
from igla.objective.base import Loss
from igla.ops.attention import AttentionLayout


@dataclass(frozen=True, eq=False)
class Distill:
    """Learn a teacher's states on texts without labels.

    The sum of two losses, each over the tokens:

    - relation: Σ over queries, keys and values of the last layers of KL(teacher ‖ student) of their
      self-attention relations, the mean over heads (MiniLMv2: Wang et al. 2021, equation 3)
    - hidden: the mean square of what the student's last states, brought to the teacher's width,
      differ by from the teacher's (as TinyBERT: Jiao et al. 2020, equation 8). It reaches what of
      the last layer the relations do not

    teacher  in evaluation mode; it computes where and in what type the student does, and nothing
             in it is learned
    """

    teacher: Encoder

    def loss(self, model: Any, batch: PackedBatch) -> Loss:
        """Loss of a model.embedding.Student."""
        layout = AttentionLayout(batch.cu_seqlens, batch.max_seqlen)
        self.teacher.to(batch.tokens.device).compute_dtype = model.encoder.compute_dtype
        with torch.no_grad():
            their_TH, their_qkv_T3H = self.teacher.last_states(batch)
        our_TH, our_qkv_T3H = model.encoder.last_states(batch)
        heads = math.gcd(self.teacher.config.heads, our_qkv_T3H.shape[2])
        relation = torch.zeros((), device=our_TH.device)
        for pair in zip(their_qkv_T3H.unbind(1), our_qkv_T3H.unbind(1), strict=True):
            theirs, ours = (relations(x_TH.float(), heads, layout) for x_TH in pair)
            # Cells beyond a sequence's end hold −∞ on both sides, which are to count nothing.
            apart_BS = (theirs.exp() * (theirs - ours).nan_to_num(0.0)).sum(-1).mean(1)
            relation = relation + (apart_BS * layout.real).sum()
        hidden = F.mse_loss(model.project(our_TH).float(), their_TH.float(), reduction="sum")
        hidden = hidden / their_TH.shape[1]
        parts = {"relation": relation.detach(), "hidden": hidden.detach()}
        count = torch.tensor(len(batch.tokens), device=relation.device)
        return Loss(relation + hidden, count, parts)
