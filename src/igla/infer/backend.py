"""What decoders and schedulers know of an engine: rows of tokens in, logits out, a cache between.

A forward takes rows of several sequences. Of each sequence it takes first rows that are committed,
its next tokens, whose keys and values enter the cache; then scratch rows, a window of guesses
whose keys and values are forgotten. Autoregressive decoding, chunks of a prompt, the verification
of a draft and WeDLM's windows (arXiv 2512.22737) are all of this form, and one forward may hold
all of them.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor

from igla.errors import UserError
from igla.infer.cache import CacheUse, PagedKVCache


@dataclass(frozen=True)
class Rows:
    """The rows of one sequence in a forward, which lie side by side.

    sequence   its number in the backend's cache; named once in a forward
    committed  how many rows come first that are the sequence's next tokens. With n tokens in the
               cache their positions are n, n + 1, … in this order. Their keys and values are
               written to the pool, and the cache's length grows by them.
    scratch    how many rows follow whose keys and values are dropped after the forward. Their
               positions are free: any order, gaps, several rows for one position.
    logits     of how many of these rows, the last ones, logits are wanted; None: all

    Who sees whom follows the physical order, whatever the positions say (they only turn queries
    and keys): a row attends to what the cache held of its sequence before the forward, to the
    committed rows up to itself, and, if it is scratch, to all committed rows and to the scratch
    rows before it and itself. Rows of other sequences do not exist for it.
    """

    sequence: int
    committed: int
    scratch: int = 0
    logits: int | None = None

    @property
    def count(self) -> int:
        return self.committed + self.scratch

    @property
    def wanted(self) -> int:
        return self.count if self.logits is None else self.logits


@dataclass
class BackendStats:
    """Counted since the backend was made.

    rows     tokens given to forwards, scratch rows included
    seconds  by stage: prepare (tables, masks), compute (the model), gather and scatter (of engines
             that do not read the pools)
    """

    forwards: int = 0
    rows: int = 0
    scratch_rows: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    cache: CacheUse | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def count(self, sequences: Sequence[Rows]) -> None:
        self.forwards += 1
        self.rows += sum(rows.count for rows in sequences)
        self.scratch_rows += sum(rows.scratch for rows in sequences)


class Backend(Protocol):
    """An engine with a decoder's weights.

    name           of the engine
    said           what it computes with, for people
    vocab_size     V
    max_positions  positions are below it; None: no limit
    scratch        what scratch rows it can do: "free" (all that Rows says), "ascending" (only
                   positions that go on from the committed ones without gaps), "none"

    A row's logits do not hang on which rows of other sequences are computed beside it, to within
    the backend's stated tolerance. On the torch backend in float32 on a processor with the
    compiled kernels they are the same bits, however a text is cut into forwards.
    """

    name: str
    said: str
    vocab_size: int
    max_positions: int | None
    scratch: str

    def forward(
        self, tokens: np.ndarray, positions: np.ndarray, sequences: Sequence[Rows]
    ) -> Tensor:
        """Logits [Σ wanted, V], float32 on the processor, in the order of the rows.

        tokens, positions  [T] int64, the sequences' rows one after another, T = Σ count

        Raises OutOfBlocks when the pool has no room for the committed rows of all (nothing has
        been computed or changed), UserError for what the engine cannot do (see `scratch`), and
        ValueError for rows that contradict the cache.
        """
        ...

    def kv_cache(self) -> PagedKVCache:
        """The cache that `forward` reads and grows; the same object every time."""
        ...

    def stats(self) -> BackendStats:
        """What has been done so far, and the cache's use now."""
        ...


def check_rows(
    backend: Backend, tokens: np.ndarray, positions: np.ndarray, sequences: Sequence[Rows]
) -> None:
    """ValueError or UserError unless these rows are what `Backend.forward` takes."""
    total = sum(rows.count for rows in sequences)
    if not len(tokens) == len(positions) == total:
        raise ValueError(f"{len(tokens)} tokens and {len(positions)} positions for {total} rows")
    if len({rows.sequence for rows in sequences}) < len(sequences):
        raise ValueError("a sequence is named twice in one forward")
    if total and backend.max_positions is not None and positions.max() >= backend.max_positions:
        raise UserError(
            f"Position {positions.max()} is asked for; the model knows {backend.max_positions}."
        )
    cache, start = backend.kv_cache(), 0
    for rows in sequences:
        length = cache.length(rows.sequence)
        middle, stop = start + rows.committed, start + rows.count
        if not np.array_equal(positions[start:middle], np.arange(length, length + rows.committed)):
            raise ValueError(
                f"committed rows of sequence {rows.sequence} stand at {positions[start:middle]}; "
                f"the cache holds {length} tokens"
            )
        if rows.scratch and backend.scratch == "none":
            raise UserError(f"The {backend.name} backend computes no scratch rows.")
        follows = length + np.arange(rows.committed, rows.count)
        if backend.scratch == "ascending" and not np.array_equal(positions[middle:stop], follows):
            raise UserError(
                f"The {backend.name} backend takes scratch rows only at the positions that go on "
                f"from the committed ones, not at {positions[middle:stop].tolist()}."
            )
        start = stop
