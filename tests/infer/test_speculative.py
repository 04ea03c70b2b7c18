"""Guesses change how many forwards a text takes, and nothing of its distribution."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from igla.infer.decoding import Autoregressive, Decoding, Text
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.simulated import SimulatedBackend
from igla.infer.speculative import Draft, DraftModel, PromptLookup, Speculative, SpeculativeStats

VOCABULARY = 5


def engine(seed: int, sharpness: float = 1.0) -> SimulatedBackend:
    """Distributions over five tokens that hang on the last two."""
    tables = np.random.default_rng(seed).normal(size=(VOCABULARY, VOCABULARY, VOCABULARY))

    def logits(seen: np.ndarray) -> np.ndarray:
        before = seen[-2, 0] if len(seen) > 1 else 0
        return sharpness * tables[before, seen[-1, 0]]

    return SimulatedBackend(VOCABULARY, blocks=600, distribution=logits)


def texts(backend: SimulatedBackend, decodings: list[Decoding], tokens: int) -> list[list[int]]:
    scheduler = Scheduler(backend, budget=10_000, max_sequences=1000)
    for decoding in decodings:
        scheduler.submit([0, 1, 2, 0, 1], [decoding], max_tokens=tokens)
    found: dict[int, list[int]] = {}
    while not scheduler.idle:
        for one in scheduler.step():
            found.setdefault(one.request, []).extend(new.token for new in one.tokens)
    return [found[request] for request in sorted(found)]


class Constant:
    """Always guesses the same tokens."""

    def draft(self, text: Text, count: int) -> Draft:
        return Draft([2, 2, 0][:count])


def decodings(kind: str, sampling: dict[str, float], count: int) -> list[Decoding]:
    small = engine(1)
    drafters = {
        "draft model": lambda seed: DraftModel(small, Sampling(**sampling, seed=seed + 10**6)),
        "prompt lookup": lambda seed: PromptLookup(),
        "always the same": lambda seed: Constant(),
    }
    return [
        Speculative(drafters[kind](seed), Sampling(**sampling, seed=seed), guesses=3)
        for seed in range(count)
    ]


@pytest.mark.parametrize(
    ("kind", "sampling"),
    [
        ("draft model", {"temperature": 1.0}),
        ("prompt lookup", {"temperature": 1.0}),
        ("always the same", {"temperature": 1.0}),
        ("draft model", {"temperature": 0.7, "top_k": 3, "repetition_penalty": 1.3}),
    ],
)
def test_texts_have_the_models_own_distribution(kind: str, sampling: dict[str, float]) -> None:
    """Chi-square of the first three tokens together, of 800 texts each way: 125 outcomes."""
    count = 800
    plain = [Autoregressive(Sampling(**sampling, seed=10**9 + seed)) for seed in range(count)]
    guessed = decodings(kind, sampling, count)
    found = [
        Counter(tuple(one) for one in texts(engine(0), list(each), 3)) for each in (plain, guessed)
    ]
    outcomes = sorted(set(found[0]) | set(found[1]), key=lambda one: -sum(c[one] for c in found))
    # The rare ones together: the test wants some of each.
    common = [one for one in outcomes if sum(counts[one] for counts in found) >= 10]
    table = [[counts[one] for one in common] for counts in found]
    for row in table:
        row.append(count - sum(row))
    table = np.array(table)[:, np.array(table).sum(0) > 0]
    assert table.shape[1] > 10
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_a_biased_check_would_be_found() -> None:
    """The same test on the draft's own tokens: it can fail."""
    count = 800
    plain = [Autoregressive(Sampling(temperature=1.0, seed=10**9 + seed)) for seed in range(count)]
    first = Counter(one[0] for one in texts(engine(0), list(plain), 1))
    small = [Autoregressive(Sampling(temperature=1.0, seed=seed)) for seed in range(count)]
    biased = Counter(one[0] for one in texts(engine(1), list(small), 1))
    table = np.array([[counts[token] for token in range(VOCABULARY)] for counts in (first, biased)])
    assert stats.chi2_contingency(table).pvalue < 1e-6


@pytest.mark.parametrize("kind", ["draft model", "prompt lookup", "always the same"])
def test_greedy_texts_are_the_same(kind: str) -> None:
    for seed in range(5):
        [expected] = texts(engine(seed), [Autoregressive(Sampling())], 40)
        assert texts(engine(seed), decodings(kind, {}, 1), 40) == [expected]


def test_good_guesses_save_forwards() -> None:
    sampling = Sampling()
    counts = SpeculativeStats()
    drafter = DraftModel(engine(0), sampling)
    backend = engine(0)
    texts(backend, [Speculative(drafter, sampling, guesses=4, stats=counts)], 40)
    assert backend.stats().forwards == counts.passes == 8
    assert counts.kept == counts.guessed == 32


def test_prompt_lookup_guesses_what_followed_the_longest_repetition() -> None:
    text = Text([1, 2, 3, 9, 4, 2, 3, 8, 7], [1, 2, 3])
    assert PromptLookup().draft(text, 3).tokens == [9, 4, 2]
    assert PromptLookup(longest=2).draft(text, 2).tokens == [8, 7]
    assert PromptLookup().draft(Text([1, 2, 3]), 3).tokens == []
    assert PromptLookup().draft(Text([5]), 3).tokens == []
    assert PromptLookup().draft(Text([5, 5, 5]), 3).tokens == [5]


def test_a_draft_model_leaves_no_sequence_behind() -> None:
    small = engine(1)
    drafter = DraftModel(small, Sampling())
    texts(engine(0), [Speculative(drafter, Sampling())], 20)
    assert small.kv_cache().use().sequences == 1
    del drafter
    assert small.kv_cache().use().sequences == 0


def test_a_draft_that_knows_fewer_positions_guesses_no_further() -> None:
    small, counts = engine(0), SpeculativeStats()
    small.max_positions = 20
    drafter = DraftModel(small, Sampling())
    [found] = texts(engine(0), [Speculative(drafter, Sampling(), stats=counts)], 40)
    assert found == texts(engine(0), [Autoregressive(Sampling())], 40)[0]
    assert counts.kept == counts.guessed > 10


def test_a_full_cache_of_the_draft_means_fewer_guesses() -> None:
    small = engine(1)
    small.kv_cache().reserve(small.kv_cache().open(), 599 * 16)
    drafter = DraftModel(small, Sampling())
    [found] = texts(engine(0), [Speculative(drafter, Sampling())], 40)
    assert found == texts(engine(0), [Autoregressive(Sampling())], 40)[0]
