"""Classification with what keeps a model from learning its rows by heart.

Shape suffixes: B sequences, C classes, T tokens in all, H hidden size.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from igla.data.batch import PackedBatch
from igla.objective.base import Loss
from igla.objective.classify import Classify

# Steps of projected gradient ascent, each of this share of the ball that they stay in.
PGD_STEPS, PGD_STRIDE = 3, 0.5


@dataclass(frozen=True)
class WordDropout:
    """Hides each ordinary token with a chance of `share`, so that no single word is relied on
    (Iyyer et al. 2015 leave it out; the mask keeps the places of the others).

    mask_id  the token that stands for a hidden one
    special  [V] bool, which tokens are never hidden
    """

    share: float
    mask_id: int
    special: Tensor

    def __call__(self, batch: PackedBatch) -> PackedBatch:
        tokens_T = batch.tokens
        hidden_T = torch.rand(len(tokens_T), device=tokens_T.device) < self.share
        hidden_T &= ~self.special.to(tokens_T.device)[tokens_T]
        return replace(batch, tokens=tokens_T.masked_fill(hidden_T, self.mask_id))


@dataclass(frozen=True, eq=False)
class Teacher:
    """What teachers say of the rows (Hinton et al. 2015): the loss is (1 − w) times that of the
    labels plus w·T² times KL(softmax(t/T) ‖ softmax(z/T)); with several labels a row, of each yes
    or no, the mean over the classes.

    logits       t [N, C] of all rows of the store
    weight       w
    temperature  T
    """

    logits: Tensor
    weight: float
    temperature: float

    def divergence(self, logits_BC: Tensor, rows_B: Tensor, *, multi_label: bool) -> Tensor:
        """T²·KL [B] of logits from the teachers' on the same rows."""
        theirs_BC = self.logits[rows_B.cpu()].to(logits_BC) / self.temperature
        ours_BC = logits_BC / self.temperature
        if multi_label:
            theirs_BC, ours_BC = (torch.stack([-z, z]) / 2 for z in (theirs_BC, ours_BC))
            theirs_BC, ours_BC = theirs_BC.log_softmax(0), ours_BC.log_softmax(0)
            apart_B = (theirs_BC.exp() * (theirs_BC - ours_BC)).sum(0).mean(1)
        else:
            theirs_BC, ours_BC = theirs_BC.log_softmax(1), ours_BC.log_softmax(1)
            apart_B = (theirs_BC.exp() * (theirs_BC - ours_BC)).sum(1)
        return apart_B * self.temperature**2


@dataclass(frozen=True)
class Regularised:
    """A classifier's loss with one or several regularisers; with none it is that of `plain`.

    R-Drop and mixup do not go together: a mixed sequence has no second pass of its own.

    r_drop       α of R-Drop (Liang et al. 2021): the batch goes through twice, each time with other
                 elements dropped; the loss is the mean of both plus α/2 times the mean of the two
                 Kullback-Leibler divergences between the predictions
    mixup        α of manifold mixup (Verma et al. 2019) of what stands for a sequence: with
                 λ ~ Beta(α, α), h = λ·h₁ + (1−λ)·h₂ is to be λ of one label and 1−λ of the other
    adversary    fgm or pgd: the loss at words' embeddings moved to where it grows is added, by one
                 step along the gradient (Miyato et al. 2017, equation 7) or by several (Madry et
                 al. 2018)
    reach        of the adversary: the length of the move over that of the sequence's embeddings
    word_dropout hides words, other ones in each pass
    teacher      whose predictions are learned beside the labels
    """

    plain: Classify
    r_drop: float = 0.0
    mixup: float = 0.0
    adversary: str = "none"
    reach: float = 0.0
    word_dropout: WordDropout | None = None
    teacher: Teacher | None = None

    def loss(self, model: Any, batch: PackedBatch) -> Loss:
        """Loss of a model.encoder.SequenceClassifier."""
        found = self._mixed(model, batch) if self.mixup else self._once(model, batch)
        if self.adversary != "none":
            batch = self._shown(batch)
            nudge_TH = self._worst_nudge(model, batch)
            moved = self._compare(model.classify(model.represent(batch, nudge_TH)), batch)
            found = Loss(found.sum + moved.sum, found.count)
        return found

    def _shown(self, batch: PackedBatch) -> PackedBatch:
        return batch if self.word_dropout is None else self.word_dropout(batch)

    def _compare(self, logits_BC: Tensor, batch: PackedBatch) -> Loss:
        assert batch.targets is not None and batch.weights is not None
        found = self.plain.compare(logits_BC, batch.targets, batch.weights)
        if self.teacher is None:
            return found
        assert batch.rows is not None
        apart_B = self.teacher.divergence(logits_BC, batch.rows, multi_label=self.plain.multi_label)
        share, apart = self.teacher.weight, self._counted(apart_B, batch)
        return Loss((1 - share) * found.sum + share * apart, found.count)

    def _counted(self, values_B: Tensor, batch: PackedBatch) -> Tensor:
        """A sum of values of sequences that count as their losses do."""
        assert batch.targets is not None and batch.weights is not None
        return (values_B * self.plain.counts(batch.targets, batch.weights)).sum()

    def _once(self, model: Any, batch: PackedBatch) -> Loss:
        logits_BC = model(self._shown(batch))
        first = self._compare(logits_BC, batch)
        if not self.r_drop:
            return first
        again_BC = model(self._shown(batch))
        second = self._compare(again_BC, batch)
        apart_B = divergence(logits_BC, again_BC, multi_label=self.plain.multi_label)
        apart = self._counted(apart_B, batch)
        return Loss((first.sum + second.sum + self.r_drop * apart) / 2, first.count)

    def _mixed(self, model: Any, batch: PackedBatch) -> Loss:
        assert batch.targets is not None and batch.weights is not None
        first_BH = model.represent(self._shown(batch))
        share = _beta(self.mixup).to(first_BH)
        other_B = torch.randperm(len(first_BH), device=first_BH.device)
        logits_BC = model.classify(share * first_BH + (1 - share) * first_BH[other_B])
        rows_B = None if batch.rows is None else batch.rows[other_B]
        targets, weights_B = batch.targets[other_B], batch.weights[other_B]
        others = replace(batch, targets=targets, weights=weights_B, rows=rows_B)
        one, two = self._compare(logits_BC, batch), self._compare(logits_BC, others)
        return Loss(share * one.sum + (1 - share) * two.sum, one.count)

    def _worst_nudge(self, model: Any, batch: PackedBatch) -> Tensor:
        """What, added to the words' embeddings, makes the loss large [T, H], of length `reach`
        times theirs over each sequence."""
        with torch.no_grad():
            words_TH = model.encoder.embeddings.word(batch.tokens)
        reach_T1 = self.reach * _lengths(words_TH, batch)
        nudge_TH = torch.zeros_like(words_TH)
        steps, stride = (1, 1.0) if self.adversary == "fgm" else (PGD_STEPS, PGD_STRIDE)
        for _ in range(steps):
            nudge_TH.requires_grad_()
            found = self._compare(model.classify(model.represent(batch, nudge_TH)), batch)
            # Only the direction matters; a larger loss keeps fp16 from losing it.
            (slope_TH,) = torch.autograd.grad(1024 * found.sum, nudge_TH)
            towards_TH = slope_TH / _lengths(slope_TH, batch).clamp(min=1e-12)
            nudge_TH = nudge_TH.detach() + stride * reach_T1 * towards_TH
            inside_T1 = reach_T1 / _lengths(nudge_TH, batch).clamp(min=1e-12)
            nudge_TH = nudge_TH * inside_T1.clamp(max=1.0)
        return nudge_TH


def divergence(one_BC: Tensor, other_BC: Tensor, *, multi_label: bool) -> Tensor:
    """Mean [B] of KL(p‖q) and KL(q‖p) of two predictions' logits: ½·Σ_c (p−q)·(log p − log q).

    With several labels a sequence, of each yes or no, the mean over the classes.
    """
    if multi_label:
        apart_BC = (one_BC.sigmoid() - other_BC.sigmoid()) * (one_BC - other_BC)
        return apart_BC.mean(dim=1) / 2
    one_BC, other_BC = F.log_softmax(one_BC, dim=1), F.log_softmax(other_BC, dim=1)
    return ((one_BC.exp() - other_BC.exp()) * (one_BC - other_BC)).sum(dim=1) / 2


def _lengths(x_TH: Tensor, batch: PackedBatch) -> Tensor:
    """Euclidean length of each sequence's part of x, at each of its tokens [T, 1]."""
    squares_T = x_TH.square().sum(dim=1)
    squares_B = squares_T.new_zeros(len(batch.cu_seqlens) - 1)
    sequence_T = batch.sequence_of_tokens
    return squares_B.index_add(0, sequence_T, squares_T).sqrt()[sequence_T, None]


def _beta(alpha: float) -> Tensor:
    """A draw from Beta(α, α) by torch's generator, on which resuming depends."""
    one, other = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64))
    return one / (one + other)
