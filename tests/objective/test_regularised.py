"""Regularisers against their published formulas, written out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from igla.data.batch import PackedBatch, pack
from igla.model.config import EncoderConfig
from igla.model.encoder import SequenceClassifier
from igla.objective.classify import Classify
from igla.objective.regularised import (
    PGD_STEPS,
    Regularised,
    Teacher,
    WordDropout,
    divergence,
)

SHAPE = EncoderConfig(30, 16, 2, 2, 32, 16, dropout=0.0, attention_dropout=0.0)


def classify(loss: str = "cross_entropy", multi_label: bool = False) -> Classify:
    return Classify(loss, multi_label, None, 0.0, 2.0)


def batch_of(multi_label: bool = False) -> PackedBatch:
    draw = np.random.default_rng(0)
    sequences = [draw.integers(0, 30, length) for length in (5, 1, 9, 16)]
    targets = (
        draw.integers(0, 2, (4, 3)).astype(np.float32) if multi_label else np.array([0, 2, 1, 1])
    )
    return pack(sequences, targets, np.array([1.0, 2.0, 0.5, 1.0]))


def model_of(**changes: Any) -> SequenceClassifier:
    torch.manual_seed(0)
    model = SequenceClassifier(EncoderConfig(**(vars(SHAPE) | changes)), 3).double()
    for parameter in model.parameters():  # larger, so that predictions differ
        torch.nn.init.normal_(parameter, std=0.3)
    model.encoder.compute_dtype = torch.float64
    return model


class Predictions:
    """A model that gives one set of logits after another."""

    def __init__(self, *logits: Tensor):
        self.logits = list(logits)

    def __call__(self, batch: PackedBatch) -> Tensor:
        return self.logits.pop(0)


def test_without_regularisers_it_is_the_plain_loss() -> None:
    model, batch = model_of(), batch_of()
    plain = classify()
    assert Regularised(plain).loss(model, batch).sum == plain.loss(model, batch).sum


@pytest.mark.parametrize("multi_label", [False, True])
def test_r_drop_is_the_published_sum(multi_label: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    one, other = (torch.randn(4, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    batch = batch_of(multi_label)
    plain = classify("binary_cross_entropy" if multi_label else "cross_entropy", multi_label)
    found = Regularised(plain, r_drop=3.0).loss(Predictions(one, other), batch)  # type: ignore[arg-type]
    targets, weights = batch.targets, batch.weights
    assert targets is not None and weights is not None
    if multi_label:
        p, q = one.sigmoid(), other.sigmoid()
        forth = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        back = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
        apart = (forth + back).mean(1) / 2
        losses = [
            F.binary_cross_entropy_with_logits(z, targets.double(), reduction="none").mean(1)
            for z in (one, other)
        ]
    else:
        p, q = one.softmax(1), other.softmax(1)
        apart = ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)) / 2
        losses = [F.cross_entropy(z, targets, reduction="none") for z in (one, other)]
    # Liang et al. 2021, equation 4, halved, and a mean weighted by the examples' weights.
    wanted = ((losses[0] + losses[1] + 3.0 * apart) / 2 * weights).sum() / weights.sum()
    torch.testing.assert_close(found.sum / found.count, wanted)
    torch.testing.assert_close(divergence(one, other, multi_label=multi_label), apart)


def test_mixup_is_the_mixed_loss_of_the_mixed_states() -> None:
    model, batch, plain = model_of(), batch_of(), classify()
    assert batch.targets is not None and batch.weights is not None
    torch.manual_seed(5)
    found = Regularised(plain, mixup=0.4).loss(model, batch)
    torch.manual_seed(5)
    one, other = torch._standard_gamma(torch.full((2,), 0.4, dtype=torch.float64))
    share, order = one / (one + other), torch.randperm(4)
    states = model.represent(batch)
    logits = model.classify(share * states + (1 - share) * states[order])
    logs = -logits.log_softmax(1)
    wanted = sum(
        part * logs[row, batch.targets[at]] * batch.weights[at]
        for row in range(4)
        for part, at in ((share, row), (1 - share, order[row]))
    )
    torch.testing.assert_close(found.sum, wanted)
    assert found.count == batch.weights.sum()


@pytest.mark.parametrize("adversary", ["fgm", "pgd"])
def test_the_adversary_moves_as_far_as_allowed_and_for_the_worse(adversary: str) -> None:
    model, batch, plain = model_of(), batch_of(), classify()
    assert batch.targets is not None and batch.weights is not None
    objective = Regularised(plain, adversary=adversary, reach=0.05)
    nudge = objective._worst_nudge(model, batch)
    words = model.encoder.embeddings.word(batch.tokens).detach()
    for first, last in zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False):
        ratio = nudge[first:last].norm() / words[first:last].norm()
        assert ratio <= 0.05 * (1 + 1e-6)
        assert adversary == "pgd" or ratio == pytest.approx(0.05, rel=1e-6)
    before = plain.loss(model, batch).sum
    after = plain.compare(
        model.classify(model.represent(batch, nudge)), batch.targets, batch.weights
    )
    assert after.sum > before
    total = objective.loss(model, batch)
    torch.testing.assert_close(total.sum, before + after.sum)
    if adversary == "fgm":  # the first step of Miyato et al. 2017, equation 7
        free = torch.zeros_like(words, requires_grad=True)
        moved = model.classify(model.represent(batch, free))
        (slope,) = torch.autograd.grad(plain.compare(moved, batch.targets, batch.weights).sum, free)
        first, last = batch.cu_seqlens[2], batch.cu_seqlens[3]
        wanted = slope[first:last] / slope[first:last].norm() * 0.05 * words[first:last].norm()
        torch.testing.assert_close(nudge[first:last], wanted)


def test_several_steps_find_a_worse_place_than_one() -> None:
    model, batch, plain = model_of(), batch_of(), classify()
    assert batch.targets is not None and batch.weights is not None and PGD_STEPS > 1
    worse = [
        Regularised(plain, adversary=adversary, reach=0.5).loss(model, batch).sum
        for adversary in ("fgm", "pgd")
    ]
    assert worse[1] > worse[0]


def test_a_nudge_of_nothing_changes_nothing() -> None:
    model, batch = model_of(), batch_of()
    nudge = torch.zeros(len(batch.tokens), 16, dtype=torch.float64)
    torch.testing.assert_close(model.represent(batch, nudge), model.represent(batch))


def test_word_dropout_hides_the_asked_share_and_no_special_token() -> None:
    tokens = np.random.default_rng(0).integers(0, 30, 20_000)
    batch = pack([tokens])
    special = torch.arange(30) < 5
    torch.manual_seed(0)
    hidden = WordDropout(0.1, mask_id=4, special=special)(batch)
    changed = hidden.tokens != batch.tokens
    ordinary = ~special[batch.tokens]
    assert (hidden.tokens[changed] == 4).all() and not (changed & ~ordinary).any()
    assert changed[ordinary].float().mean() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(hidden.positions, batch.positions)


def test_each_pass_hides_other_words() -> None:
    seen = []

    def look(batch: PackedBatch) -> Tensor:
        seen.append(batch.tokens)
        return torch.zeros(4, 3, requires_grad=True)

    special = torch.zeros(30, dtype=torch.bool)
    objective = Regularised(classify(), r_drop=1.0, word_dropout=WordDropout(0.5, 4, special))
    objective.loss(look, batch_of())
    assert len(seen) == 2 and not torch.equal(*seen)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_teachers_loss_is_the_published_one(multi_label: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    theirs, logits = (torch.randn(n, 3, generator=draw, dtype=torch.float64) for n in (9, 4))
    rows = torch.tensor([7, 0, 3, 3])
    batch = replace(batch_of(multi_label), rows=rows)
    plain = classify("binary_cross_entropy" if multi_label else "cross_entropy", multi_label)
    objective = Regularised(plain, teacher=Teacher(theirs, weight=0.3, temperature=2.0))
    found = objective.loss(Predictions(logits), batch)  # type: ignore[arg-type]
    if multi_label:
        p, q = (theirs[rows] / 2).sigmoid(), (logits / 2).sigmoid()
        apart = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1)
    else:
        p, q = (theirs[rows] / 2).softmax(1), (logits / 2).softmax(1)
        apart = (p * (p / q).log()).sum(1)
    labels = plain.loss(Predictions(logits), batch)  # type: ignore[arg-type]
    assert batch.weights is not None
    wanted = 0.7 * labels.sum / labels.count
    wanted += 0.3 * 4 * (apart * batch.weights).sum() / batch.weights.sum()
    torch.testing.assert_close(found.sum / found.count, wanted)
