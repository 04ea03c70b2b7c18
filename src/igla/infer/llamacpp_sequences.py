"""Which of llama.cpp's sequences hold what of the paged cache's.

llama.cpp numbers its sequences from 0 to a limit, and keeps of each the keys and values of some
tokens. The paged cache opens, forks, truncates and closes sequences without telling anybody. Here
the former follow the latter when they are needed: what a sequence lacks is taken over from whoever
begins with the same tokens, and what nobody has is computed anew by the backend.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from igla.infer.cache import PagedKVCache

# Sequences of no text any more that are kept for who begins like them. All that is kept slows each
# forward, since llama.cpp computes scores with all keys and masks those of others.
_KEPT = 4


@dataclass(eq=False)
class Held:
    """One of llama.cpp's sequences.

    number    its own
    sequence  of the cache, whose text it begins with
    tokens    whose keys and values it has
    used      the forward that it was last needed in
    """

    number: int
    sequence: int
    tokens: list[int] = field(default_factory=list)
    used: int = 0


class Sequences:
    """llama.cpp's sequences for a cache.

    memory  llama_memory of the context
    """

    def __init__(self, library: Any, memory: Any, cache: PagedKVCache):
        self._library = library
        self._memory = memory
        self._cache = cache
        self._held: dict[int, Held] = {}  # by the cache's number
        self._free = [*range(library.llama_max_parallel_sequences())]
        self._turn = 0

    def hold(self, sequences: Sequence[int]) -> list[Held]:
        """For sequences of the cache those of llama.cpp, each with as much of the committed text as
        there is; they are not given up before the next call."""
        self._turn += 1
        for sequence in sequences:
            if sequence in self._held:
                self._held[sequence].used = self._turn
        found = [self._found(sequence) for sequence in sequences]
        closed = [one for one in self._held.values() if not self._cache.is_open(one.sequence)]
        for one in sorted(closed, key=lambda one: one.used)[: max(0, len(closed) - _KEPT)]:
            self._drop(one)
        return found

    def cut(self, held: Held, length: int) -> None:
        """Forget all but the first `length` tokens, and whatever stands behind them."""
        self._library.llama_memory_seq_rm(self._memory, held.number, length, -1)
        del held.tokens[length:]

    def give_one_up(self) -> bool:
        """Forget a sequence that this forward does not need, closed ones first, then the longest
        unused; False where there is none."""
        others = [one for one in self._held.values() if one.used < self._turn]
        if not others:
            return False
        self._drop(min(others, key=lambda one: (self._cache.is_open(one.sequence), one.used)))
        return True

    def clear(self) -> None:
        """Forget all."""
        for one in [*self._held.values()]:
            self._drop(one)

    def _found(self, sequence: int) -> Held:
        length = self._cache.length(sequence)
        held = self._held.get(sequence)
        if held is None:
            held = self._added(sequence)
        elif len(held.tokens) > length:
            self.cut(held, length)
        return held

    def _added(self, sequence: int) -> Held:
        """A new one, with what others have of its text."""
        text = np.array(self._cache.tokens(sequence))
        source, shared = None, 0
        for one in self._held.values():
            common = _common(text, one.tokens)
            if common > shared:
                source, shared = one, common
        if source is not None:
            source.used = self._turn  # not to be given up now
        if not self._free and not self.give_one_up():
            raise RuntimeError("a forward needs more sequences than llama.cpp can tell apart")
        held = Held(self._free.pop(), sequence, used=self._turn)
        self._held[sequence] = held
        if source is not None:
            self._library.llama_memory_seq_cp(self._memory, source.number, held.number, 0, shared)
            held.tokens = source.tokens[:shared]
        return held

    def _drop(self, held: Held) -> None:
        self.cut(held, 0)
        del self._held[held.sequence]
        self._free.append(held.number)


def _common(text: np.ndarray, tokens: Sequence[int]) -> int:
    """How many tokens both begin with."""
    count = min(len(text), len(tokens))
    differ = np.flatnonzero(text[:count] != np.array(tokens[:count], dtype=text.dtype))
    return int(differ[0]) if len(differ) else count
