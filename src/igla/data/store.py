"""The token store: a data set's token ids in memory-mapped arrays."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from igla.data.batch import PackedBatch, pack
from igla.data.cache import cached_folder
from igla.data.dataset import Dataset
from igla.data.selection import UNUSED
from igla.text.tokenizer import TextEncoder

_STRETCH = 4_000_000


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Token ids of N sequences, with what the objective needs to know of each.

    tokens   memory-mapped ids, one sequence after another
    offsets  [N+1] where each begins
    lost     [N] tokens cut off each
    labels   [N] class indices, or [N, C] 0/1; a row without labels is never asked for. None: there
             are no labels and weights at all
    weights  [N] float32
    """

    tokens: np.ndarray
    offsets: np.ndarray
    lost: np.ndarray
    labels: np.ndarray | None = None
    weights: np.ndarray | None = None

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def stretches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Tokens of some millions at a time of the given rows, laid end to end, and the number of
        the row that each is of."""
        ends = self.lengths[rows].cumsum()
        cuts = np.searchsorted(ends, np.arange(_STRETCH, ends[-1] if len(ends) else 0, _STRETCH))
        for part in np.split(rows, cuts):
            if len(part):
                tokens = np.concatenate(self.sequences(part)).astype(np.int64)
                yield tokens, part.repeat(self.lengths[part])

    def occurrences(self, rows: np.ndarray, vocab_size: int) -> np.ndarray:
        """[V] how often each token occurs in the given rows."""
        counts = np.zeros(vocab_size, dtype=np.int64)
        for tokens, _ in self.stretches(rows):
            counts += np.bincount(tokens, minlength=vocab_size)
        return counts

    def batch(self, rows: np.ndarray) -> PackedBatch:
        """The given rows, packed."""
        return self.packed(rows, self.sequences(rows))

    def sequences(self, rows: np.ndarray) -> list[np.ndarray]:
        """The tokens of each of the given rows."""
        return [self.tokens[self.offsets[row] : self.offsets[row + 1]] for row in rows]

    def packed(self, rows: np.ndarray, sequences: list[np.ndarray]) -> PackedBatch:
        """Sequences that stand for the given rows, with these rows' labels and weights."""
        if self.labels is None or self.weights is None:
            return pack(sequences)
        packed = pack(sequences, self.labels[rows], self.weights[rows])
        return replace(packed, rows=torch.from_numpy(np.asarray(rows, dtype=np.int64)))


def open_store(dataset: Dataset, encoder: TextEncoder) -> TokenStore:
    """The tokens of a data set; tokenized in parallel the first time, then read from the cache."""
    settings = f"{dataset.fingerprint} {encoder.max_length} {encoder.tokenizer.to_str()}"
    key = hashlib.sha256(settings.encode()).hexdigest()[:32]
    folder = cached_folder("tokens", key, lambda making: _tokenize(dataset, encoder, making))
    return TokenStore(
        tokens=np.memmap(folder / "tokens.bin", dtype=id_type(encoder), mode="r"),
        offsets=np.load(folder / "offsets.npy"),
        lost=np.load(folder / "lost.npy"),
        labels=dataset.labels.values,
        weights=dataset.weights,
    )


def id_type(encoder: TextEncoder) -> type[np.uint16] | type[np.uint32]:
    """The narrower type that holds all ids of a vocabulary."""
    return np.uint16 if encoder.vocab_size <= 1 << 16 else np.uint32


def _tokenize(dataset: Dataset, encoder: TextEncoder, folder: Path) -> None:
    used = np.flatnonzero(dataset.parts != UNUSED)
    lengths, lost = [], []
    with (folder / "tokens.bin").open("wb") as file:
        for texts in dataset.text_batches(used):
            encoded = encoder.encode(texts)
            lengths.append([len(ids) for ids in encoded.ids])
            lost.append(encoded.lost)
            file.write(np.concatenate(encoded.ids).astype(id_type(encoder)).tobytes())
    # Rows that are not used have length 0, so that a row has one number everywhere.
    all_lengths, all_lost = np.zeros((2, len(dataset.parts)), dtype=np.int64)
    all_lengths[used] = np.concatenate(lengths)
    all_lost[used] = np.concatenate(lost)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(all_lengths)]))
    np.save(folder / "lost.npy", all_lost)
