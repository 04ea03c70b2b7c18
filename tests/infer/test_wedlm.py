"""Decoding by WeDLM: what is laid out, what is filled, what is kept, and what comes of it."""

from collections.abc import Callable, Sequence
from math import log

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE

from igla.data.batch import pack
from igla.errors import UserError
from igla.infer.backend import Backend, Rows
from igla.infer.decoding import Autoregressive, Decided, Decoding
from igla.infer.generator import Generator, Masks
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Progress, Scheduler
from igla.infer.simulated import SimulatedBackend
from igla.infer.torch_backend import TorchBackend
from igla.infer.wedlm import (
    DistancePenalty,
    First,
    SlidingWindow,
    Wedlm,
    WedlmStats,
    entropy,
    topological_order,
)
from igla.model.decoder import Decoder
from igla.objective.dual_stream import attend_to_both, masked_stream
from igla.ops.native import native

Make = Callable[..., Decoder]
MASK, END, VOCAB = 0, 1, 50
PROMPTS = [[5, 6, 7], [9] * 20, [3], [8, 2, 8, 2, 8]]


def decide(
    scheduler: Scheduler,
    prompts: Sequence[Sequence[int]],
    decodings: Sequence[Decoding],
    max_tokens: int = 40,
    each_step: Callable[[], None] = lambda: None,
) -> list[list[int]]:
    """What follows each prompt."""
    numbers = [
        scheduler.submit(prompt, [decoding], max_tokens=max_tokens, stop_tokens=[END])
        for prompt, decoding in zip(prompts, decodings, strict=True)
    ]
    found: dict[int, list[int]] = {number: [] for number in numbers}
    ends: dict[int, Progress] = {}
    while not scheduler.idle:
        for progress in scheduler.step():
            assert progress.request not in ends
            found[progress.request] += [decided.token for decided in progress.tokens]
            if progress.finished:
                ends[progress.request] = progress
        each_step()
    assert ends.keys() == found.keys()
    return [found[number] for number in numbers]


def oracle(target: Sequence[int], sure: Callable[[int], bool] = lambda position: True) -> object:
    """Logits of who knows the text: a mask's of its own position, a word's of the one behind it;
    where it is not sure, half its mind is on another word."""

    def logits(seen: np.ndarray) -> np.ndarray:
        token, position = seen[-1]
        place = position if token == MASK else position + 1
        told = np.full(VOCAB, -20.0)
        told[target[place]] = 5.0
        if not sure(place):
            told[(target[place] + 1) % VOCAB] = 4.9
        return told

    return logits


def target_of(length: int, end_at: int | None = None) -> list[int]:
    text = np.random.default_rng(0).integers(2, VOCAB, length).tolist()
    if end_at is not None:
        text[end_at] = END
    return text


def test_what_is_filled_comes_first_and_each_group_is_in_order() -> None:
    filled = Decided(7)
    assert topological_order([None, filled, None, filled, filled, None]) == [1, 3, 4, 0, 2, 5]


def test_the_entropy_is_in_nats_and_of_the_softmax_of_the_logits() -> None:
    p = np.array([0.5, 0.25, 0.25])
    logits = np.stack([np.zeros(3), np.log(p) + 7.0])
    expected = [log(3), 0.5 * log(2) + 0.5 * log(4)]
    assert entropy(logits).tolist() == pytest.approx(expected, abs=1e-12)
    certain = np.array([[0.0, -1e4, -1e4]])
    assert entropy(certain).tolist() == [0.0]


def test_far_positions_have_to_be_surer() -> None:
    rule = DistancePenalty(threshold=0.4, penalty=0.02)
    assert rule.chosen([0.39, 0.39, 0.35, 0.2], [0, 1, 2, 10]) == [0, 2]
    assert rule.chosen([0.41, 0.45, 0.43], [0, 1, 2]) == [0]
    assert rule.chosen([0.9, 0.5, 0.7], [0, 3, 4]) == [1]
    assert rule.under([0.9, 0.5, 0.7], [0, 3, 4]) == []


def test_the_window_lets_join_what_is_filled_without_a_gap() -> None:
    window = SlidingWindow()
    a, b, c, d = (Decided(token) for token in (5, 6, 7, 8))
    assert window.fill({1: b, 3: d}) == []
    assert window.refilled(6) == [None, b, None, d, None, None]
    assert window.fill({0: a}) == [a, b]
    assert window.refilled(3) == [None, d, None]
    assert window.fill({0: c}) == [c, d]
    assert window.ahead == []


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_p=0.9, seed=3)])
def test_with_a_window_of_one_it_is_autoregressive_decoding_for_any_model(
    decoder: Make, sampling: Sampling
) -> None:
    backend = TorchBackend(decoder())
    one = decide(Scheduler(backend), PROMPTS, [Wedlm(MASK, sampling, window=1) for _ in PROMPTS])
    other = decide(Scheduler(backend), PROMPTS, [Autoregressive(sampling) for _ in PROMPTS])
    assert one == other


@pytest.mark.parametrize("first", ["causal", "mask"])
def test_a_mask_predicts_its_own_position(first: First) -> None:
    target = target_of(60)
    backend = SimulatedBackend(VOCAB, distribution=oracle(target, lambda place: place % 3 != 1))
    found = decide(
        Scheduler(backend), [target[:4]], [Wedlm(MASK, window=7, first=first)], max_tokens=40
    )
    assert found == [target[4:44]]


@pytest.mark.parametrize("first", ["causal", "mask"])
def test_without_islands_all_rows_go_on_from_the_text_in_order(first: First) -> None:
    target = target_of(60)
    backend = SimulatedBackend(VOCAB, distribution=oracle(target, lambda place: place % 3 != 1))
    backend.scratch = "ascending"  # others are refused
    stats = WedlmStats()
    decoding = Wedlm(MASK, window=7, first=first, islands=False, stats=stats)
    assert decide(Scheduler(backend), [target[:4]], [decoding], max_tokens=40) == [target[4:44]]
    assert stats.tokens_per_forward(40) > 1.4
    with pytest.raises(UserError, match="only at the positions that go on"):
        decide(Scheduler(backend), [target[:4]], [Wedlm(MASK, window=7, first=first)])


@pytest.mark.parametrize("first", ["causal", "mask"])
def test_of_a_sure_model_every_pass_gives_a_window(first: First) -> None:
    target, stats = target_of(200), WedlmStats()
    backend = SimulatedBackend(VOCAB, distribution=oracle(target))
    decoding = Wedlm(MASK, window=8, first=first, stats=stats)
    (found,) = decide(Scheduler(backend), [target[:4]], [decoding], max_tokens=160)
    assert found == target[4:164]
    assert stats.passes == pytest.approx(160 / 8, abs=1)
    assert stats.tokens_per_forward(160) == pytest.approx(8, rel=0.1)
    # A window of masks, and what they have become, is computed for each window of text.
    assert stats.cache_efficiency(160) == pytest.approx(0.5, rel=0.1)


def test_a_window_reaches_twice_as_far_as_was_sure_before() -> None:
    target = target_of(200)
    rows = {}
    for name, sure in (("never", False), ("always", True)):
        backend = SimulatedBackend(VOCAB, distribution=oracle(target, lambda _, sure=sure: sure))
        for adapts in (True, False):
            stats = WedlmStats()
            decoding = Wedlm(MASK, window=8, adapts=adapts, stats=stats)
            (found,) = decide(Scheduler(backend), [target[:4]], [decoding], max_tokens=160)
            assert found == target[4:164]
            rows[name, adapts] = stats.rows / stats.passes
    # Each pass reads the last token and two masks, of which the first place needs none.
    assert rows["never", True] == pytest.approx(3, abs=0.1)
    assert rows["never", False] > 7
    assert rows["always", True] == rows["always", False]


def test_the_confidence_is_that_of_the_model_and_not_of_the_temperature() -> None:
    target = target_of(60)
    passes = []
    for temperature in (0.0, 1e-3):
        stats = WedlmStats()
        backend = SimulatedBackend(VOCAB, distribution=oracle(target, lambda place: place % 3 != 1))
        decoding = Wedlm(MASK, Sampling(temperature=temperature, seed=1), window=7, stats=stats)
        assert decide(Scheduler(backend), [target[:4]], [decoding]) == [target[4:44]]
        passes.append(stats.passes)
    assert passes[0] == passes[1]


@pytest.mark.parametrize("first", ["causal", "mask"])
def test_a_budget_that_others_use_up_leaves_each_text_a_place_to_decide(first: First) -> None:
    target = target_of(60)
    backend = SimulatedBackend(VOCAB, distribution=oracle(target, lambda place: place % 3 != 1))
    decodings = [Wedlm(MASK, window=12, first=first) for _ in range(4)]
    found = decide(Scheduler(backend, budget=16), [target[:4]] * 4, decodings)
    assert found == [target[4:44]] * 4


@pytest.mark.parametrize("first", ["causal", "mask"])
@pytest.mark.parametrize("end_at", [4, 9, 12, 20])
def test_a_text_ends_at_its_end_token_wherever_the_window_stands(end_at: int, first: First) -> None:
    target = target_of(80, end_at)
    backend = SimulatedBackend(VOCAB, distribution=oracle(target))
    found = decide(Scheduler(backend), [target[:4]], [Wedlm(MASK, window=8, first=first)])
    assert found == [target[4:end_at]]


@pytest.mark.parametrize("first", ["causal", "mask"])
@pytest.mark.parametrize("max_tokens", [1, 2, 7, 8, 9, 23])
def test_no_more_tokens_come_than_were_asked_for(max_tokens: int, first: First) -> None:
    target = target_of(40)
    # A model that knows no more positions than the text may have.
    backend = SimulatedBackend(VOCAB, distribution=oracle(target), max_positions=4 + max_tokens)
    decoding = Wedlm(MASK, window=8, first=first)
    found = decide(Scheduler(backend), [target[:4]], [decoding], max_tokens)
    assert found == [target[4 : 4 + max_tokens]]


@pytest.mark.parametrize("first", ["causal", "mask"])
@pytest.mark.parametrize("engine", ["torch", "simulated"])
def test_the_cache_holds_what_reading_the_text_would_leave_and_no_island(
    decoder: Make, engine: str, first: First
) -> None:
    model = decoder()
    # Without kernels the last bits of a product hang on the number of its rows.
    rounding = 0 if engine == "simulated" or native().library else 1e-5

    def backend() -> Backend:
        return TorchBackend(model) if engine == "torch" else SimulatedBackend(VOCAB)

    used = backend()
    cache, islands = used.kv_cache(), 0
    # So much of a threshold that positions are filled here and there.
    rule = DistancePenalty(threshold=2.2, penalty=0.0)
    decodings = [Wedlm(MASK, window=6, rule=rule, first=first, adapts=False) for _ in PROMPTS]

    def check() -> None:
        nonlocal islands
        islands += sum(any(decoding._window.ahead) for decoding in decodings)
        for number in [*cache._tables]:
            tokens = cache.tokens(number)
            fresh = backend()
            read = fresh.kv_cache()
            rows = Rows(read.open(), len(tokens), logits=0)
            fresh.forward(np.array(tokens), np.arange(len(tokens)), [rows])
            for ours, theirs in ((cache.keys, read.keys), (cache.values, read.values)):
                for one, other in zip(ours, theirs, strict=True):
                    mine = one[:, cache.slots(number, 0, len(tokens))]
                    fresh_one = other[:, read.slots(rows.sequence, 0, len(tokens))]
                    torch.testing.assert_close(mine, fresh_one, rtol=rounding, atol=rounding)

    found = decide(Scheduler(used), PROMPTS, decodings, max_tokens=24, each_step=check)
    assert islands > 5
    assert all(found)


@pytest.mark.parametrize("first", ["causal", "mask"])
def test_texts_with_windows_of_their_own_do_not_disturb_one_another(
    decoder: Make, first: First
) -> None:
    backend = TorchBackend(decoder())

    def decodings() -> list[Wedlm]:
        rule = DistancePenalty(threshold=1.5)
        return [Wedlm(MASK, window=size, rule=rule, first=first) for size in (4, 16, 1, 9)]

    together = decide(Scheduler(backend), PROMPTS, decodings())
    alone = [
        decide(Scheduler(backend), [prompt], [decoding])[0]
        for prompt, decoding in zip(PROMPTS, decodings(), strict=True)
    ]
    assert together == alone
    # And where a pass has no room for all of them,
    assert decide(Scheduler(backend, budget=12), PROMPTS, decodings()) == alone
    # or where the pool is too small for all, so that some have to begin anew.
    small = Scheduler(TorchBackend(decoder(), cache_tokens=128))
    assert decide(small, PROMPTS, decodings()) == alone
    assert small.preemptions


@pytest.mark.parametrize(
    "changes",
    [{}, {"sliding_window": 6}, {"position": "alibi"}, {"position": "learned"}],
    ids=["plain", "window", "alibi", "learned"],
)
def test_a_mask_sees_at_generation_what_it_saw_in_training(
    decoder: Make, changes: dict[str, object]
) -> None:
    model = decoder(**changes)
    chance = np.random.default_rng(0)
    batch = pack([chance.integers(1, 61, length) for length in (21, 1, 30, 2)])
    torch.manual_seed(1)
    stream = masked_stream(batch, batch.positions > 0, 8)
    shown = stream.tokens(batch.tokens, MASK)
    tokens = torch.cat([batch.tokens, shown])
    positions = torch.cat([batch.positions, batch.positions[stream.source]])
    with torch.inference_mode():
        states = model(tokens, positions, attend_to_both(batch, stream, model.config))
        learned = model.logits(states)[len(batch.tokens) :]
    backend = TorchBackend(model)
    for block, start in enumerate(stream.starts.tolist()):
        rows = (stream.block == block).nonzero()[:, 0]
        begin = int(batch.cu_seqlens[batch.sequence_of_tokens[start]])
        before, window = slice(begin, start), stream.source[rows]
        tokens = torch.cat([batch.tokens[before], shown[rows]]).numpy()
        positions = torch.cat([batch.positions[before], batch.positions[window]]).numpy()
        laid = Rows(backend.kv_cache().open(), start - begin, len(rows), logits=len(rows))
        found = backend.forward(tokens, positions, [laid])
        torch.testing.assert_close(found, learned[rows], rtol=1e-4, atol=1e-4)


def test_a_decoder_that_fills_masks_does_so_unless_each_token_hangs_on_those_before(
    decoder: Make,
) -> None:
    plain = Generator(decoder(), Tokenizer(BPE()), [END])
    fills = Generator(decoder(), Tokenizer(BPE()), [END], masks=Masks(MASK, 32))
    drawn, penalised = Sampling(temperature=0.7), Sampling(repetition_penalty=1.2)
    assert isinstance(plain.decoding(drawn), Autoregressive)
    assert isinstance(fills.decoding(drawn), Wedlm)
    assert isinstance(fills.decoding(penalised), Autoregressive)
