"""The packed batch: sequences laid end to end, without padding."""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """B sequences of T tokens in all.

    tokens      [T] int64, the sequences one after another
    positions   [T] int64, counted from 0 within each sequence
    cu_seqlens  [B+1] int64, where each sequence starts; the last entry is T
    max_seqlen  length of the longest sequence
    targets     what the objective compares with: class indices [B], 0/1 floats [B, C], or bool
                [T], which of the tokens are to be guessed
    weights     [B] float32, how much each sequence counts
    rows        [B] int64, numbers of the sequences in their store
    """

    tokens: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    targets: Tensor | None = None
    weights: Tensor | None = None
    rows: Tensor | None = None

    @property
    def sequence_of_tokens(self) -> Tensor:
        """[T] number of the sequence that each token is of."""
        sizes_B = self.cu_seqlens.diff()
        numbers_B = torch.arange(len(sizes_B), device=sizes_B.device)
        return torch.repeat_interleave(numbers_B, sizes_B, output_size=len(self.tokens))

    def to(self, device: torch.device) -> "PackedBatch":
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


def pack(
    sequences: list[np.ndarray],
    targets: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> PackedBatch:
    """Lay integer sequences, none of them empty, end to end."""
    lengths = np.array([len(sequence) for sequence in sequences])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    return PackedBatch(
        tokens=torch.from_numpy(np.concatenate(sequences).astype(np.int64)),
        positions=torch.from_numpy(positions),
        cu_seqlens=torch.from_numpy(starts),
        max_seqlen=int(lengths.max()),
        targets=None if targets is None else torch.from_numpy(np.ascontiguousarray(targets)),
        weights=None if weights is None else torch.from_numpy(weights.astype(np.float32)),
    )
