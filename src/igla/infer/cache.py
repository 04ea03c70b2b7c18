"""The paged cache of keys and values (Kwon et al. 2023, arXiv 2309.06180): tables, sharing, pools.

Keys and values live in pools, one of each a layer, cut into blocks of 16 slots; a sequence is a
table of blocks. Nothing is moved when sequences come, grow, fork or leave, and only the last block
of a sequence can be partly empty.

What holds at any time (tests/infer/test_cache.py tries it with random operations):
- a block is in use, kept or free, and in one of these only; the three make up the pool;
- a block's count of references is the number of tables that it stands in;
- a block that is written to stands in one table and is not offered to others as a prefix.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

BLOCK = 16


class OutOfBlocks(Exception):
    """The pool has no room for what was asked; nothing has been changed."""


@dataclass(frozen=True)
class CacheUse:
    """What a cache holds and has done.

    blocks     in the pool: used + kept + free
    used       blocks that stand in a table
    kept       blocks of no sequence that hold a prefix which may be asked for again
    tokens     tokens in used blocks, those of shared blocks counted once
    found      tokens that new sequences found computed, in all
    evicted    kept blocks that were taken for other content, in all
    copied     blocks copied because another sequence shared them, in all
    """

    blocks: int
    used: int
    kept: int
    free: int
    sequences: int
    tokens: int
    found: int
    evicted: int
    copied: int

    @property
    def waste(self) -> float:
        """Share of the slots in use that hold no token."""
        return 1 - self.tokens / (self.used * BLOCK) if self.used else 0.0


@dataclass
class _Table:
    """A sequence: its committed tokens, the blocks they are in, the digests of its full blocks."""

    tokens: list[int]
    blocks: list[int]
    digests: list[bytes] = field(default_factory=list)
    array: np.ndarray | None = None  # of the blocks, made when asked for


class PagedKVCache:
    """Tables of sequences over pools of `blocks` blocks.

    keys, values  one tensor [kv_heads, blocks·16, head_dim] a layer; slot = block·16 + offset.
                  Empty where the engine keeps keys and values itself (layers=0): then this is the
                  book-keeping alone.
    share         whether new sequences take over computed prefixes

    A backend writes in three steps: `reserve` makes room, the forward pass writes to `slots`, and
    `commit` says which tokens the sequence has gained. Everyone else opens, forks, truncates and
    closes sequences. Not for several threads.
    """

    def __init__(
        self,
        blocks: int,
        *,
        layers: int = 0,
        kv_heads: int = 0,
        head_dim: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        share: bool = True,
    ):
        shape = kv_heads, blocks * BLOCK, head_dim
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.blocks = blocks
        self._share = share
        self._tables: dict[int, _Table] = {}
        self._next = 0
        self._references = [0] * blocks
        self._digest_of: dict[int, bytes] = {}  # blocks that are offered as a prefix
        self._block_of: dict[bytes, int] = {}
        self._free = list(range(blocks - 1, -1, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()  # the longest unused first
        self._found = self._evicted = self._copied = 0

    # Sequences

    def open(self, tokens: Sequence[int] = ()) -> int:
        """A new sequence, for a text that begins with these tokens; returns its number.

        The longest run of its full blocks that has been committed before is taken over, but never
        all of the tokens: the last one must be computed, to know what follows it. `length` tells
        how many were found.
        """
        table = _Table([], [])
        digest = b""
        for start in range(0, len(tokens) - BLOCK, BLOCK) if self._share else ():
            part = tokens[start : start + BLOCK]
            digest = _chained(digest, part)
            block = self._block_of.get(digest)
            if block is None:
                break
            self._take_over(block)
            table.blocks.append(block)
            table.digests.append(digest)
            table.tokens.extend(part)
        self._found += len(table.tokens)
        return self._add(table)

    def fork(self, sequence: int) -> int:
        """A new sequence of the same content, which shares all blocks; returns its number."""
        parent = self._tables[sequence]
        blocks = parent.blocks[: needed(len(parent.tokens))]  # none that are reserved and empty
        for block in blocks:
            self._references[block] += 1
        return self._add(_Table([*parent.tokens], blocks, [*parent.digests]))

    def truncate(self, sequence: int, length: int) -> None:
        """Forget all but the first `length` tokens."""
        table = self._tables[sequence]
        if not 0 <= length <= len(table.tokens):
            raise ValueError(f"sequence {sequence} has {len(table.tokens)} tokens, not {length}")
        del table.tokens[length:]
        del table.digests[length // BLOCK :]
        self._drop_blocks(table, needed(length))

    def close(self, sequence: int) -> None:
        """Forget a sequence. Its full blocks are kept for others until the pool needs them."""
        self._drop_blocks(self._tables.pop(sequence), 0)

    def is_open(self, sequence: int) -> bool:
        return sequence in self._tables

    def length(self, sequence: int) -> int:
        """Committed tokens."""
        return len(self._tables[sequence].tokens)

    def tokens(self, sequence: int) -> list[int]:
        """The committed tokens."""
        return [*self._tables[sequence].tokens]

    # Room

    @property
    def available(self) -> int:
        """Blocks that can be had: free ones, and kept ones, which are then forgotten."""
        return len(self._free) + len(self._kept)

    def blocks_for(self, sequence: int, count: int) -> int:
        """Blocks that `reserve` would take from the pool."""
        table = self._tables[sequence]
        if not count:
            return 0
        new = max(0, needed(len(table.tokens) + count) - len(table.blocks))
        return new + self._is_shared_at_end(table)

    def reserve(self, sequence: int, count: int) -> None:
        """Make room for `count` more tokens that this sequence alone writes to.

        A last block that others share is copied first. Raises OutOfBlocks.
        """
        if self.blocks_for(sequence, count) > self.available:
            raise OutOfBlocks(
                f"{self.blocks_for(sequence, count)} blocks of {BLOCK} tokens are needed, "
                f"{self.available} of {self.blocks} are left"
            )
        if not count:
            return
        table = self._tables[sequence]
        length = len(table.tokens)
        if self._is_shared_at_end(table):
            self._copy_last(table)
        elif length < len(table.blocks) * BLOCK:
            # What is offered must not change: after a truncation the last block may be on offer.
            for block in table.blocks[length // BLOCK :]:
                self._withdraw(block)
        while len(table.blocks) < needed(length + count):
            table.blocks.append(self._take())
            table.array = None

    def commit(self, sequence: int, tokens: Sequence[int]) -> None:
        """These tokens' keys and values have been written to the reserved slots that come next.

        Full blocks are offered as prefixes from here on.
        """
        table = self._tables[sequence]
        table.tokens.extend(tokens)
        if needed(len(table.tokens)) > len(table.blocks):
            raise ValueError(f"{len(tokens)} tokens were committed without room reserved for them")
        for index in range(len(table.digests), len(table.tokens) // BLOCK):
            part = table.tokens[index * BLOCK : (index + 1) * BLOCK]
            digest = _chained(table.digests[-1] if table.digests else b"", part)
            table.digests.append(digest)
            if self._share and digest not in self._block_of:
                self._block_of[digest] = table.blocks[index]
                self._digest_of[table.blocks[index]] = digest

    # Where things are

    def table(self, sequence: int) -> np.ndarray:
        """Numbers of the sequence's blocks [·], int32, reserved ones included; not to be kept."""
        table = self._tables[sequence]
        if table.array is None:
            table.array = np.array(table.blocks, dtype=np.int32)
        return table.array

    def slots(self, sequence: int, start: int, stop: int) -> Tensor:
        """Slots in the pools of the positions from start to stop, committed or reserved [·]."""
        positions = np.arange(start, stop)
        found = self.table(sequence)[positions // BLOCK].astype(np.int64) * BLOCK
        device = self.keys[0].device if self.keys else "cpu"
        return torch.from_numpy(found + positions % BLOCK).to(device)

    def use(self) -> CacheUse:
        """What is held, counted anew."""
        filled: dict[int, int] = {}
        for table in self._tables.values():
            for index, block in enumerate(table.blocks):
                inside = min(BLOCK, max(0, len(table.tokens) - index * BLOCK))
                filled[block] = max(filled.get(block, 0), inside)
        return CacheUse(
            blocks=self.blocks,
            used=len(filled),
            kept=len(self._kept),
            free=len(self._free),
            sequences=len(self._tables),
            tokens=sum(filled.values()),
            found=self._found,
            evicted=self._evicted,
            copied=self._copied,
        )

    # Blocks

    def _add(self, table: _Table) -> int:
        number = self._next
        self._next += 1
        self._tables[number] = table
        return number

    def _take(self) -> int:
        """A block of nobody's: a free one, or else the one kept that was unused the longest."""
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._kept.popitem(last=False)
            self._withdraw(block)
            self._evicted += 1
        self._references[block] = 1
        return block

    def _take_over(self, block: int) -> None:
        self._kept.pop(block, None)
        self._references[block] += 1

    def _drop_blocks(self, table: _Table, keep: int) -> None:
        # The last block first: of a chain that nobody uses, the end is the first to be evicted,
        # since without its beginning it could not be found.
        while len(table.blocks) > keep:
            block = table.blocks.pop()
            table.array = None
            self._references[block] -= 1
            if self._references[block]:
                continue
            if block in self._digest_of:
                self._kept[block] = None
            else:
                self._free.append(block)

    def _is_shared_at_end(self, table: _Table) -> bool:
        """Whether the block that the next token goes to stands in other tables, too."""
        index = len(table.tokens) // BLOCK
        return index < len(table.blocks) and self._references[table.blocks[index]] > 1

    def _copy_last(self, table: _Table) -> None:
        index = len(table.tokens) // BLOCK
        old, new = table.blocks[index], self._take()
        for pool in (*self.keys, *self.values):
            pool[:, new * BLOCK : (new + 1) * BLOCK] = pool[:, old * BLOCK : (old + 1) * BLOCK]
        self._references[old] -= 1
        table.blocks[index] = new
        table.array = None
        self._copied += 1

    def _withdraw(self, block: int) -> None:
        """Offer a block no longer."""
        digest = self._digest_of.pop(block, None)
        if digest is not None:
            del self._block_of[digest]


def needed(tokens: int) -> int:
    """Blocks that so many tokens take."""
    return -(-tokens // BLOCK)


def _chained(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Digest of a block's tokens and of all that come before them."""
    content = np.asarray(tokens, dtype=np.int64).tobytes()
    return hashlib.blake2b(parent + content, digest_size=16).digest()
