"""The dual stream: what it hides, who sees whom, and what is summed."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from igla.data.batch import PackedBatch, pack
from igla.model.decoder import Decoder, DecoderConfig, packed_causal
from igla.objective.dual_stream import MaskedStream, attend_to_both, masked_stream
from igla.objective.wedlm import Wedlm

VOCAB, MASK, SIZE = 40, 0, 8


def decoder(**changes: object) -> Decoder:
    torch.manual_seed(0)
    shape = dict(hidden_size=16, layers=2, heads=4, kv_heads=2, head_dim=4, intermediate_size=32)
    config = DecoderConfig(vocab_size=VOCAB, max_positions=64, **shape | changes)  # type: ignore[arg-type]
    return Decoder(config).double()


@pytest.fixture
def batch() -> PackedBatch:
    chance = np.random.default_rng(0)
    return pack([chance.integers(1, VOCAB, length) for length in (21, 1, 30, 2)])


def stream_of(batch: PackedBatch, learned_T: Tensor | None = None) -> MaskedStream:
    torch.manual_seed(1)
    return masked_stream(batch, batch.positions > 0 if learned_T is None else learned_T, SIZE)


def states(model: Decoder, batch: PackedBatch, stream: MaskedStream) -> Tensor:
    """Hidden states of the masked stream."""
    tokens = torch.cat([batch.tokens, stream.tokens(batch.tokens, MASK)])
    positions = torch.cat([batch.positions, batch.positions[stream.source]])
    attend = attend_to_both(batch, stream, model.config)
    hidden: Tensor = model(tokens, positions, attend)[len(batch.tokens) :]
    return hidden


def test_the_masked_stream_holds_each_learned_token_once_and_hides_some_of_each_block(
    batch: PackedBatch,
) -> None:
    stream = stream_of(batch)
    assert sorted(stream.source.tolist()) == (batch.positions > 0).nonzero()[:, 0].tolist()
    blocks = stream.block.bincount()
    hidden = torch.zeros(len(blocks)).index_add_(0, stream.block, stream.masked.float())
    assert blocks.max() <= SIZE
    assert (hidden >= 1).all()
    torch.testing.assert_close(stream.share, hidden / blocks)
    sequences = batch.sequence_of_tokens[stream.source]
    for block in range(len(blocks)):
        rows = stream.block == block
        assert len(sequences[rows].unique()) == 1
        order = list(zip(stream.masked[rows].tolist(), stream.source[rows].tolist(), strict=True))
        assert order == sorted(order), "what is seen comes first, both by position"


def test_blocks_begin_anywhere_and_every_share_is_drawn(batch: PackedBatch) -> None:
    begins, shares = set(), set()
    for seed in range(200):
        torch.manual_seed(seed)
        stream = masked_stream(batch, batch.positions > 0, SIZE)
        begins |= set(batch.positions[stream.starts].tolist())
        shares |= {round(share, 3) for share in stream.share.tolist()}
    assert begins == set(range(1, 30))
    assert {one / SIZE for one in range(1, SIZE + 1)} <= shares


def test_what_is_not_to_be_learned_stands_in_the_clean_stream_alone(batch: PackedBatch) -> None:
    learned = (batch.positions > 12) & (batch.positions != 17)
    stream = stream_of(batch, learned)
    assert sorted(stream.source.tolist()) == learned.nonzero()[:, 0].tolist()
    for block in range(int(stream.block.max()) + 1):
        source = stream.source[stream.block == block].sort().values
        assert (source.diff() == 1).all(), "no block bridges what is not learned"


def test_no_hidden_token_and_no_later_one_changes_a_prediction(batch: PackedBatch) -> None:
    model, stream = decoder(), stream_of(batch)
    before = states(model, batch, stream)
    for place in range(len(batch.tokens)):
        tokens = batch.tokens.clone()
        tokens[place] = tokens[place] % (VOCAB - 1) + 1
        changed = PackedBatch(tokens, batch.positions, batch.cu_seqlens, batch.max_seqlen)
        after = states(model, changed, stream)
        same_sequence = batch.sequence_of_tokens[stream.source] == batch.sequence_of_tokens[place]
        in_context = same_sequence & (stream.starts[stream.block] > place)
        seen = (stream.source == place) & ~stream.masked
        in_block = (
            stream.block == stream.block[seen][0] if seen.any() else torch.zeros_like(stream.masked)
        )
        touched = (before != after).any(dim=1)
        assert not (touched & ~(in_context | in_block)).any()
        assert touched[in_context].all()
        assert touched[in_block & stream.masked].all()


def test_the_loss_is_the_sum_over_blocks_weighed_by_their_shares_and_the_next_words(
    batch: PackedBatch,
) -> None:
    model = decoder()
    torch.manual_seed(1)
    loss = Wedlm(MASK, SIZE).loss(model, batch)
    stream = stream_of(batch)
    logits = model.logits(states(model, batch, stream)).log_softmax(1).detach()
    expected = 0.0
    for row in stream.masked.nonzero()[:, 0].tolist():
        share = float(stream.share[stream.block[row]])
        expected -= float(logits[row, batch.tokens[stream.source[row]]]) / share
    clean = model(batch.tokens, batch.positions, packed_causal(batch, model.config))
    following = 0.0
    for place in (batch.positions > 0).nonzero()[:, 0].tolist():
        scores = model.logits(clean[place - 1]).log_softmax(0).detach()
        following -= float(scores[batch.tokens[place]])
    assert float(loss.parts["masked"]) == pytest.approx(expected, rel=1e-5)
    assert float(loss.parts["autoregressive"]) == pytest.approx(following, rel=1e-5)
    assert loss.sum.item() == pytest.approx(expected + following, rel=1e-5)
    assert int(loss.count) == int((batch.positions > 0).sum())


def test_of_a_model_that_knows_nothing_the_loss_is_twice_the_logarithm_of_the_vocabulary(
    batch: PackedBatch,
) -> None:
    model = decoder()
    with torch.no_grad():
        model.head_weight.zero_()
    loss = Wedlm(MASK, SIZE).loss(model, batch)
    assert (loss.sum / loss.count).item() == pytest.approx(2 * log(VOCAB), rel=1e-6)


def test_of_conversations_the_assistants_tokens_alone_are_learned(batch: PackedBatch) -> None:
    said = (batch.positions > 3) & (batch.positions < 12)
    told = replace(batch, targets=said)
    model = decoder()
    torch.manual_seed(1)
    loss = Wedlm(MASK, SIZE).loss(model, told)
    assert int(loss.count) == int(said.sum())
    # What comes after the last of them changes nothing.
    tokens = torch.where(batch.positions >= 12, batch.tokens % (VOCAB - 1) + 1, batch.tokens)
    torch.manual_seed(1)
    again = Wedlm(MASK, SIZE).loss(model, replace(told, tokens=tokens))
    torch.testing.assert_close(loss.sum, again.sum)
    # A first token has nothing before it, whoever says it.
    first = Wedlm(MASK, SIZE).loss(model, replace(batch, targets=batch.positions >= 0))
    assert int(first.count) == int((batch.positions > 0).sum())
