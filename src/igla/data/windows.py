"""Documents as windows of tokens: the token store of learning without labels."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from igla.data.cache import cached_folder
from igla.data.corpus import Corpus
from igla.data.store import TokenStore, id_type
from igla.errors import UserError
from igla.text.tokenizer import TextEncoder

# A shorter rest of a document is left out.
SHORTEST = 8
_VERSION = 2  # of what is kept in the cache


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of documents of a corpus.

    store    their tokens
    sources  [N] which of the corpus's sources each is from
    parts    [N] TRAIN or VALIDATION, that of its document
    short    documents that are left out, since they have fewer than SHORTEST tokens
    """

    store: TokenStore
    sources: np.ndarray
    parts: np.ndarray
    short: int


@dataclass(frozen=True)
class Cut:
    """How documents become windows.

    name     tells one way from another
    windows  from documents to the windows of each
    """

    name: str
    windows: Callable[[Sequence[str]], Iterable[list[list[int]]]]


def cut_by_lines(encoder: TextEncoder) -> Cut:
    """Whole lines where they fit (see in_windows), each window a text of its own for the encoder:
    with its special tokens around, and without line feeds."""
    room = encoder.max_length - len(encoder.frame([]))

    def windows(texts: Sequence[str]) -> Iterator[list[list[int]]]:
        documents = [text.split("\n") for text in texts]
        encoded = iter(encoder.pieces([line for lines in documents for line in lines]))
        for lines in documents:
            tokens = [next(encoded) for _ in lines]
            yield [encoder.frame(window) for window in in_windows(tokens, room)]

    return Cut("", windows)


def cut_in_a_row(encoder: TextEncoder, end: int) -> Cut:
    """The whole document between two ends of text; a window begins with the last token of the one
    before it, so that each token but the first is once a next one."""
    length = encoder.max_length

    def windows(texts: Sequence[str]) -> Iterator[list[list[int]]]:
        for ids in encoder.pieces(texts):
            tokens = [end, *ids, end]
            starts = range(0, len(tokens) - 1, length - 1)
            yield [tokens[start : start + length] for start in starts]

    return Cut(f" in a row {end}", windows)


def open_windows(corpus: Corpus, encoder: TextEncoder, cut: Cut) -> Windows:
    """The windows of a corpus; tokenized the first time, then read from the cache."""
    settings = f"{_VERSION} {corpus.fingerprint} {encoder.max_length} {encoder.tokenizer.to_str()}"
    key = hashlib.sha256((settings + cut.name).encode()).hexdigest()[:32]
    folder = cached_folder("windows", key, lambda making: _tokenize(corpus, encoder, cut, making))
    offsets = np.load(folder / "offsets.npy")
    if len(offsets) == 1:
        raise UserError(f"No document has {SHORTEST} tokens: there is nothing to learn from.")
    store = TokenStore(
        tokens=np.memmap(folder / "tokens.bin", dtype=id_type(encoder), mode="r"),
        offsets=offsets,
        lost=np.zeros(len(offsets) - 1, dtype=np.int64),
    )
    short = int(np.load(folder / "short.npy"))
    return Windows(store, np.load(folder / "sources.npy"), np.load(folder / "parts.npy"), short)


def _tokenize(corpus: Corpus, encoder: TextEncoder, cut: Cut, folder: Path) -> None:
    lengths: list[int] = []
    sources: list[int] = []
    parts: list[int] = []
    short = 0
    with (folder / "tokens.bin").open("wb") as file:
        for batch in corpus.table.to_batches():
            of_documents = cut.windows(batch.column("text").to_pylist())
            for windows, source, part in zip(
                of_documents,
                batch.column("source").to_pylist(),
                batch.column("part").to_pylist(),
                strict=True,
            ):
                short += not windows
                for window in windows:
                    file.write(np.array(window, dtype=id_type(encoder)).tobytes())
                    lengths.append(len(window))
                    sources.append(source)
                    parts.append(part)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
    np.save(folder / "short.npy", np.int64(short))
    np.save(folder / "sources.npy", np.array(sources, dtype=np.int16))
    np.save(folder / "parts.npy", np.array(parts, dtype=np.int8))


def in_windows(lines: Sequence[list[int]], room: int) -> Iterator[list[int]]:
    """The lines of a document put together to at most `room` tokens.

    A line is cut only where it is longer than that or where what stands before it is shorter than
    SHORTEST. Nothing is left out but an end that is.
    """
    window: list[int] = []
    for line in lines:
        if len(window) + len(line) > room:
            if len(window) >= SHORTEST:
                yield window
            else:
                line = window + line
            window = []
        # Not cut off bit by bit: the one line of a file without line feeds may be millions long.
        last = max(0, len(line) - 1) // room * room
        for start in range(0, last, room):
            yield line[start : start + room]
        window = window + line[last:]
    if len(window) >= SHORTEST:
        yield window
