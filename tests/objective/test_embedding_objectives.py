"""Contrastive learning and distillation against their published formulas, written out."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from igla.data.batch import PackedBatch, pack
from igla.model.config import EncoderConfig
from igla.model.embedding import SentenceEncoder, Student, mean_of_tokens, relations
from igla.objective.contrastive import Contrastive
from igla.objective.distill import Distill
from igla.ops.attention import AttentionLayout

SHAPE = EncoderConfig(30, 16, 2, 2, 32, 16, dropout=0.0, attention_dropout=0.0)
WIDE = EncoderConfig(30, 24, 2, 4, 32, 16, dropout=0.0, attention_dropout=0.0)


def batch_of() -> PackedBatch:
    draw = np.random.default_rng(0)
    return pack([draw.integers(0, 30, length) for length in (5, 1, 9, 16)])


def sequences(batch: PackedBatch, x_T: Tensor) -> list[Tensor]:
    ends = batch.cu_seqlens.tolist()
    return [x_T[first:last] for first, last in itertools.pairwise(ends)]


def grown(model: torch.nn.Module) -> torch.nn.Module:
    """Weights so large that states differ."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_a_text_stands_for_the_mean_of_its_tokens() -> None:
    batch = batch_of()
    states = torch.randn(31, 7)
    wanted = torch.stack([part.mean(0) for part in sequences(batch, states)])
    torch.testing.assert_close(mean_of_tokens(states, batch), wanted)
    lengths = SentenceEncoder(SHAPE)(batch).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(4))


def test_the_contrastive_loss_is_the_published_one() -> None:
    one, other = (torch.nn.functional.normalize(torch.randn(4, 5), dim=1) for _ in range(2))
    given = [one, other]
    found = Contrastive(0.1).loss(lambda batch: given.pop(0), batch_of())
    wanted = 0.0
    for row in range(4):
        scores = [torch.exp(one[row] @ other[column] / 0.1) for column in range(4)]
        wanted -= torch.log(scores[row] / sum(scores))
    torch.testing.assert_close(found.sum, torch.as_tensor(wanted))
    assert found.count == 4


def test_relations_are_those_of_each_text_alone() -> None:
    batch, heads = batch_of(), 4
    x = torch.randn(31, 8, dtype=torch.float64)
    layout = AttentionLayout(batch.cu_seqlens, batch.max_seqlen)
    found = relations(x, heads, layout)
    for number, part in enumerate(sequences(batch, x)):
        length = len(part)
        cut = part.view(length, heads, 2).transpose(0, 1)
        wanted = (cut @ cut.transpose(1, 2) / 2**0.5).log_softmax(-1)
        torch.testing.assert_close(found[number, :, :length, :length], wanted)


def test_the_distillation_loss_is_the_published_one() -> None:
    batch = batch_of()
    teacher, student = grown(SentenceEncoder(WIDE)), grown(Student(SHAPE, 24))
    found = Distill(teacher.encoder).loss(student, batch)
    states, qkv = teacher.encoder.last_states(batch)
    own, own_qkv = student.encoder.last_states(batch)
    relation = 0.0
    for one, other in zip(sequences(batch, qkv), sequences(batch, own_qkv), strict=True):
        for kind in range(3):
            for head in range(4):
                x, y = one[:, kind].chunk(4, 1)[head], other[:, kind].chunk(4, 1)[head]
                p, q = (z @ z.T / z.shape[1] ** 0.5 for z in (x, y))
                p, q = p.softmax(1), q.softmax(1)
                relation += (p * (p / q).log()).sum() / 4
    hidden = (student.project(own) - states).square().sum() / 24
    torch.testing.assert_close(found.parts["relation"], torch.as_tensor(relation).detach())
    torch.testing.assert_close(found.parts["hidden"], hidden.detach())
    torch.testing.assert_close(found.sum, found.parts["relation"] + found.parts["hidden"])
    assert found.count == 31


def test_a_student_that_is_its_teacher_has_nothing_left_to_learn() -> None:
    teacher, student = grown(SentenceEncoder(SHAPE)), Student(SHAPE, 16)
    student.encoder.load_state_dict(teacher.encoder.state_dict())
    with torch.no_grad():
        student.project.weight.copy_(torch.eye(16))
        student.project.bias.zero_()
    loss = Distill(teacher.encoder).loss(student.eval(), batch_of())
    assert loss.sum.item() == pytest.approx(0, abs=1e-4)
    loss.sum.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in student.parameters())
