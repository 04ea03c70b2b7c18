"""States of sequences in layers of linear cost, beside the paged cache of those that attend.

A state holds all that came before and cannot go back. Of each sequence two are kept, before the
last forward and after it; when the cache has been truncated to between them, or further, or a fork
has no state, what lacks is computed anew.

Shape suffixes: T rows, B sequences, N heads, K width of keys, V width of values, C channels,
W width of a convolution.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from igla.infer.backend import Rows
from igla.infer.cache import PagedKVCache
from igla.model.decoder.mixers import Memory
from igla.model.decoder.mixers.memory import AttendTo
from igla.ops.linear_attention import cut_into_chunks, decayed_attention, decayed_step
from igla.ops.short_convolution import convolve


@dataclass(frozen=True)
class State:
    """What a sequence has left in the layers of linear cost after its first `length` tokens.

    matrices  [N, K, V] of linear attention, by layer
    inputs    [W − 1, C] of a convolution, by layer
    """

    length: int = 0
    matrices: dict[int, Tensor] = field(default_factory=dict)
    inputs: dict[int, Tensor] = field(default_factory=dict)

    def grown(self, tokens: int) -> "State":
        """One that begins as this one does."""
        return State(self.length + tokens, {**self.matrices}, {**self.inputs})


class States:
    """The states of a cache's sequences."""

    def __init__(self, cache: PagedKVCache):
        self._cache = cache
        self._held: dict[int, tuple[State, ...]] = {}

    def complete(
        self, tokens: np.ndarray, positions: np.ndarray, sequences: Sequence[Rows]
    ) -> tuple[np.ndarray, np.ndarray, list[Rows]]:
        """The rows of a forward, and before those of a sequence whose state is behind its text the
        tokens that it lacks: the cache is truncated by them, to be given them again."""
        self._held = {
            number: held for number, held in self._held.items() if self._cache.is_open(number)
        }
        laid: list[tuple[np.ndarray, np.ndarray]] = []
        complete, start = [], 0
        for rows in sequences:
            stop, length = start + rows.count, self._cache.length(rows.sequence)
            state = self._latest(rows.sequence)
            self._held[rows.sequence] = (state,)
            lacking = self._cache.tokens(rows.sequence)[state.length :]
            if lacking:
                self._cache.truncate(rows.sequence, state.length)
                laid.append((np.array(lacking), np.arange(state.length, length)))
            laid.append((tokens[start:stop], positions[start:stop]))
            committed = len(lacking) + rows.committed
            complete.append(Rows(rows.sequence, committed, rows.scratch, rows.wanted))
            start = stop
        if not laid:
            return tokens, positions, complete
        all_tokens, all_positions = (np.concatenate(parts) for parts in zip(*laid, strict=True))
        return all_tokens, all_positions, complete

    def of(self, sequence: int) -> State:
        """The state that a forward begins with, after `complete`."""
        return self._held[sequence][-1]

    def keep(self, sequence: int, after: State) -> None:
        """The state that a forward has left."""
        self._held[sequence] = (self.of(sequence), after)

    def _latest(self, sequence: int) -> State:
        """The longest state of the text's beginning, the sequence's own or another's."""
        length = self._cache.length(sequence)
        own = [one for one in self._held.get(sequence, ()) if one.length <= length]
        if own:
            return own[-1]
        text, best = self._cache.tokens(sequence), State()
        for other, states in self._held.items():
            theirs = self._cache.tokens(other)
            for state in states:
                inside = best.length < state.length <= min(len(text), len(theirs))
                if inside and theirs[: state.length] == text[: state.length]:
                    best = state
        return best


@dataclass(frozen=True)
class _Part:
    """Rows that go on from a state each: the committed ones of all sequences, or the scratch ones.

    rows        [·] their numbers, a sequence's side by side
    cu_seqlens  [B+1] where each sequence's begin among them
    before      their states, and `after`, to be filled
    """

    rows: Tensor
    cu_seqlens: Tensor
    before: list[State]
    after: list[State]


class RecurrentMemory(Memory):
    """What a decoder with layers of linear cost asks, for one forward.

    attend  what layers that attend ask
    states  of which each sequence's is kept anew by `keep`
    """

    def __init__(self, attend: AttendTo, states: States, sequences: Sequence[Rows]):
        self._attend = attend
        self._states = states
        self._sequences = sequences
        self._after = {
            rows.sequence: states.of(rows.sequence).grown(rows.committed) for rows in sequences
        }
        self._parts = [*self._cut()]

    def __call__(self, layer: int, query_TND: Tensor, key_TKD: Tensor, value_TKD: Tensor) -> Tensor:
        return self._attend(layer, query_TND, key_TKD, value_TKD)

    def read(
        self, layer: int, q_TNK: Tensor, k_TNK: Tensor, v_TNV: Tensor, log_decay_TN: Tensor
    ) -> Tensor:
        dtype = torch.promote_types(v_TNV.dtype, torch.float32)
        out_TNV = torch.empty(v_TNV.shape, dtype=dtype, device=v_TNV.device)
        zeros_NKV = out_TNV.new_zeros(v_TNV.shape[1], k_TNK.shape[2], v_TNV.shape[2])
        for part in self._parts:
            q, k, v, decay = (x[part.rows] for x in (q_TNK, k_TNK, v_TNV, log_decay_TN))
            states_BNKV = torch.stack([one.matrices.get(layer, zeros_NKV) for one in part.before])
            if len(part.rows) == len(part.before):
                found_TNV, states_BNKV = decayed_step(q, k, v, decay, states_BNKV)
            else:
                chunks = cut_into_chunks(part.cu_seqlens)
                found_TNV, states_BNKV = decayed_attention(q, k, v, decay, chunks, states_BNKV)
            out_TNV[part.rows] = found_TNV
            for after, state_NKV in zip(part.after, states_BNKV, strict=True):
                after.matrices[layer] = state_NKV
        return out_TNV

    def convolve(self, layer: int, x_TC: Tensor, weight_CW: Tensor) -> Tensor:
        out_TC = torch.empty_like(x_TC)
        zeros_WC = x_TC.new_zeros(weight_CW.shape[1] - 1, x_TC.shape[1])
        for part in self._parts:
            before_BWC = torch.stack([one.inputs.get(layer, zeros_WC) for one in part.before])
            found_TC, after_BWC = convolve(x_TC[part.rows], weight_CW, part.cu_seqlens, before_BWC)
            out_TC[part.rows] = found_TC
            for after, inputs_WC in zip(part.after, after_BWC, strict=True):
                after.inputs[layer] = inputs_WC
        return out_TC

    def keep(self) -> None:
        """Once the forward is through: the states after the committed rows are the sequences'."""
        for sequence, after in self._after.items():
            self._states.keep(sequence, after)

    def _cut(self) -> Iterator[_Part]:
        starts = np.cumsum([0, *(rows.count for rows in self._sequences)])
        spans = {
            "committed": [
                (rows, start, start + rows.committed)
                for rows, start in zip(self._sequences, starts, strict=False)
                if rows.committed
            ],
            "scratch": [
                (rows, stop - rows.scratch, stop)
                for rows, stop in zip(self._sequences, starts[1:], strict=True)
                if rows.scratch
            ],
        }
        for kind, found in spans.items():
            if not found:
                continue
            after = [self._after[rows.sequence] for rows, *_ in found]
            if kind == "committed":
                before = [self._states.of(rows.sequence) for rows, *_ in found]
            else:
                # What scratch rows leave is dropped.
                before, after = after, [one.grown(0) for one in after]
            counts = [stop - start for _, start, stop in found]
            yield _Part(
                torch.cat([torch.arange(start, stop) for _, start, stop in found]),
                torch.tensor([0, *np.cumsum(counts).tolist()]),
                before,
                after,
            )
