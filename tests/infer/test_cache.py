"""The paged cache: what it shares, copies, keeps and forgets, and its invariants at random."""

import os
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from igla.infer.cache import BLOCK, OutOfBlocks, PagedKVCache, needed


def content(tokens: list[int]) -> list[float]:
    """What stands in the pool for each token: a number that hangs on all before it."""
    values, state = [], 0
    for token in tokens:
        state = (state * 31 + token + 1) % 65521
        values.append(float(state))
    return values


def write(cache: PagedKVCache, sequence: int, tokens: list[int]) -> None:
    """What a backend does in a forward."""
    cache.reserve(sequence, len(tokens))
    start = cache.length(sequence)
    new = torch.tensor(content([*cache.tokens(sequence), *tokens])[start:])
    slots = cache.slots(sequence, start, start + len(tokens))
    for pool in (*cache.keys, *cache.values):
        pool[:, slots] = new[None, :, None].expand(len(pool), -1, pool.shape[2])
    cache.commit(sequence, tokens)


def read(cache: PagedKVCache, sequence: int) -> list[float]:
    slots = cache.slots(sequence, 0, cache.length(sequence))
    found = {tuple(pool[-1, slots, -1].tolist()) for pool in (*cache.keys, *cache.values)}
    assert len(found) == 1
    return list(found.pop())


def small(blocks: int) -> PagedKVCache:
    return PagedKVCache(blocks, layers=2, kv_heads=2, head_dim=2)


def text(*lengths: int) -> list[int]:
    """So many zeros, then so many ones, …"""
    return [index for index, length in enumerate(lengths) for _ in range(length)]


def test_a_prefix_is_shared_once_it_is_committed_and_full() -> None:
    cache = small(16)
    first = cache.open()
    assert cache.length(cache.open(text(40))) == 0
    write(cache, first, text(40))
    second = cache.open(text(40))
    assert cache.length(second) == 32
    np.testing.assert_array_equal(cache.table(second), cache.table(first)[:2])
    assert cache.length(cache.open(text(20, 20))) == 16
    assert cache.use().found == 48


def test_the_last_token_is_never_found_so_that_something_is_computed() -> None:
    cache = small(16)
    write(cache, cache.open(), text(32))
    assert cache.length(cache.open(text(32))) == 16
    assert cache.length(cache.open(text(33))) == 32


def test_a_fork_copies_the_block_that_it_writes_to_and_no_other() -> None:
    cache = small(16)
    first = cache.open()
    write(cache, first, text(40))
    second = cache.fork(first)
    assert cache.use().used == 3
    write(cache, second, [7])
    write(cache, first, [8])
    assert cache.use().copied == 1
    np.testing.assert_array_equal(cache.table(first)[:2], cache.table(second)[:2])
    assert read(cache, first) == content([*text(40), 8])
    assert read(cache, second) == content([*text(40), 7])


def test_the_longest_unused_block_goes_first_and_the_end_of_a_chain_before_its_beginning() -> None:
    cache = small(4)
    for token in (1, 2):
        sequence = cache.open()
        write(cache, sequence, [token] * 32)
        cache.close(sequence)
    assert cache.use().kept == 4
    write(cache, cache.open(), [3] * 16)
    assert cache.length(cache.open([1] * 33)) == 16
    assert cache.length(cache.open([2] * 33)) == 32


def test_a_block_taken_for_other_content_is_found_no_more() -> None:
    cache = small(2)
    sequence = cache.open()
    write(cache, sequence, text(32))
    cache.close(sequence)
    other = cache.open()
    write(cache, other, [5] * 32)
    cache.close(other)
    assert cache.length(cache.open(text(33))) == 0
    assert cache.use().evicted == 2


def test_what_is_offered_does_not_change_when_its_writer_takes_it_back() -> None:
    cache = small(8)
    first = cache.open()
    write(cache, first, text(32))
    cache.truncate(first, 20)
    write(cache, first, [9] * 12)
    assert cache.length(cache.open(text(33))) == 16
    again = cache.open([*text(20), *[9] * 12, 1])
    assert read(cache, again) == content([*text(20), *[9] * 12])


def test_a_full_pool_refuses_and_changes_nothing() -> None:
    cache = small(3)
    first, second = cache.open(), cache.open()
    write(cache, first, text(30))
    before = cache.use()
    with pytest.raises(OutOfBlocks, match="2 blocks of 16 tokens are needed, 1 of 3 are left"):
        cache.reserve(second, 17)
    assert cache.use() == before
    cache.close(first)
    write(cache, second, text(17))


def test_less_than_five_percent_of_the_slots_in_use_are_empty_at_a_mean_length_of_170() -> None:
    chance = np.random.default_rng(0)
    lengths = np.clip(chance.lognormal(np.log(150), 0.5, size=200), 1, 2000).astype(int)
    assert lengths.mean() >= 150
    cache = PagedKVCache(4096)
    for index, length in enumerate(lengths):
        sequence = cache.open()
        cache.reserve(sequence, length)
        cache.commit(sequence, [index] * length)
    use = cache.use()
    assert use.tokens == lengths.sum()
    assert use.used == sum(needed(length) for length in lengths)
    assert use.waste < 0.05


TOKENS = st.lists(st.integers(0, 1), max_size=3 * BLOCK)


class Random(RuleBasedStateMachine):
    """Any operations in any order, beside a dictionary that says what each sequence holds."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = small(12)
        self.held: dict[int, list[int]] = {}

    def choose(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.held)))

    @rule(tokens=TOKENS)
    def open(self, tokens: list[int]) -> None:
        sequence = self.cache.open(tokens)
        found = self.cache.length(sequence)
        assert found % BLOCK == 0 and (found < len(tokens) or not tokens)
        self.held[sequence] = tokens[:found]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), tokens=TOKENS)
    def write(self, data: st.DataObject, tokens: list[int]) -> None:
        sequence = self.choose(data)
        asked, available = self.cache.blocks_for(sequence, len(tokens)), self.cache.available
        try:
            write(self.cache, sequence, tokens)
        except OutOfBlocks:
            assert asked > available
            return
        assert available - self.cache.available == asked
        self.held[sequence] = self.held[sequence] + tokens

    @precondition(lambda self: self.held)
    @rule(data=st.data(), count=st.integers(1, 2 * BLOCK))
    def reserve_in_vain(self, data: st.DataObject, count: int) -> None:
        sequence = self.choose(data)
        if self.cache.blocks_for(sequence, count) <= self.cache.available:
            self.cache.reserve(sequence, count)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        sequence = self.choose(data)
        self.held[self.cache.fork(sequence)] = self.held[sequence]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        sequence = self.choose(data)
        length = data.draw(st.integers(0, len(self.held[sequence])))
        self.cache.truncate(sequence, length)
        self.held[sequence] = self.held[sequence][:length]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        sequence = self.choose(data)
        self.cache.close(sequence)
        del self.held[sequence]

    @invariant()
    def every_sequence_reads_what_was_written_to_it(self) -> None:
        for sequence, tokens in self.held.items():
            assert self.cache.tokens(sequence) == tokens
            assert read(self.cache, sequence) == content(tokens)

    @invariant()
    def blocks_are_conserved_and_counts_are_references(self) -> None:
        use, tables = self.cache.use(), [self.cache.table(number) for number in self.held]
        counts = Counter(int(block) for table in tables for block in table)
        assert use.used + use.kept + use.free == use.blocks
        assert use.used == len(counts) and use.sequences == len(self.held)
        assert {
            block: count for block, count in enumerate(self.cache._references) if count
        } == counts
        assert not counts.keys() & {*self.cache._free, *self.cache._kept}

    @invariant()
    def what_is_offered_is_in_no_free_block(self) -> None:
        offered = set(self.cache._digest_of)
        assert not offered & set(self.cache._free)
        assert {block: digest for digest, block in self.cache._block_of.items()} == (
            self.cache._digest_of
        )
        assert set(self.cache._kept) <= offered


# The issue asks for 10,000 operations and more: IGLA_CACHE_EXAMPLES=250 makes them.
Random.TestCase.settings = settings(
    max_examples=int(os.environ.get("IGLA_CACHE_EXAMPLES", "25")),
    stateful_step_count=50,
    deadline=None,
)
TestRandomOperations = Random.TestCase
