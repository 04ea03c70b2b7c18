"""From text files to documents, cleaned and split, for learning without labels.

A document is a row of a table, the lines of a text file up to an empty one, or a whole file.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
from rensa import RMinHashDeduplicator

from igla.data.cache import cached_folder
from igla.data.columns import choose_columns
from igla.data.dataset import Dataset
from igla.data.rows import as_strings, duplicate_key
from igla.data.selection import Decision
from igla.data.source import Source, is_text, open_source
from igla.data.split import TEST, TRAIN, VALIDATION
from igla.errors import UserError
from igla.recipe import CorpusRecipe
from igla.text.script import mostly_russian

# Name of the source that labelled rows make.
LABELLED = "data"
_SCHEMA = pa.schema({"text": pa.large_string(), "source": pa.int16(), "part": pa.int8()})
# Documents, and signs in them, that are in memory at once, more or less.
_BATCH, _SIGNS = 4096, 1 << 22
# Documents are nearly the same if they share so much of their shingles, by MinHash (Broder 1997).
_SIMILAR, _PERMUTATIONS = 0.7, 64
_SHINGLE_WORDS = 3
# Settings that the cleaned documents do not hang on, such as how often each is seen, or that their
# streams' fingerprints tell of.
_APART = {"sources", "shares", "temperature", "validation", "text_column"}


@dataclass(frozen=True)
class Corpus:
    """Documents of named sources, in two parts.

    table        text, source (index into names) and part of each, memory-mapped
    fingerprint  of all that decides about it
    """

    table: pa.Table
    names: tuple[str, ...]
    decisions: tuple[Decision, ...]
    fingerprint: str

    def texts(self, part: int) -> Iterator[str]:
        """Texts of a part, one after another."""
        for batch in self.table.to_batches():
            inside = batch.column("part").to_numpy() == part
            yield from batch.column("text").filter(pa.array(inside)).to_pylist()


@dataclass(frozen=True)
class _Stream:
    """Documents that can be gone through again.

    fingerprint  of what they hang on
    part         that all of them are of; None: each by its text
    said         what was decided on its files without being asked
    """

    fingerprint: str
    documents: Callable[[], Iterator[str]]
    part: int | None = None
    said: tuple[str, ...] = ()


def load_corpus(recipe: CorpusRecipe, seed: int, labelled: Dataset | None = None) -> Corpus:
    """Read and clean the sources of a recipe; from the cache where that has been done before.

    labelled  rows whose texts are a source as well, named LABELLED, each in its own part; those to
              test on are left out, also where they stand in another source, so that who learns from
              the corpus has not seen them

    Raises UserError where there is nothing to learn from.
    """
    streams = {}
    if labelled is not None:
        if LABELLED in recipe.sources:
            raise UserError(f"A source is named {LABELLED}, as the labelled rows are: rename it.")
        # First, and those to test on before all: of a text that stands elsewhere too, the copy that
        # is met first decides.
        streams[LABELLED] = [
            _Stream(labelled.fingerprint, partial(_texts_of, labelled, part), part)
            for part in (TEST, VALIDATION, TRAIN)
        ]
    for name, where in sorted(recipe.sources.items()):
        part = None if recipe.validation is None else TRAIN
        streams[name] = [_opened(where, recipe, part)]
    if not streams:
        raise UserError("No texts are given: name files with --corpus, or in corpus.sources.")
    _check_shares(recipe, streams)
    if recipe.validation is not None:
        # They count as the first source's, and are met first, like those to test on.
        first = next(iter(streams.values()))
        first.insert(len(first) - 1, _opened(recipe.validation, recipe, VALIDATION))
    settings = recipe.model_dump_json(exclude=_APART)
    prints = {
        name: [(stream.fingerprint, stream.part) for stream in several]
        for name, several in streams.items()
    }
    wanted = json.dumps([settings, seed, prints])
    key = hashlib.sha256(wanted.encode()).hexdigest()[:32]
    folder = cached_folder(
        "corpora", key, lambda making: _Cleaning(recipe, seed).write(streams, making)
    )
    with (folder / "decisions.json").open(encoding="utf-8") as file:
        decisions = [Decision(**one) for one in json.load(file)]
    told = [
        Decision("source", 0, f"{name}: {line}")
        for name, several in streams.items()
        for stream in several
        for line in stream.said
    ]
    reader = pa.ipc.open_file(pa.memory_map(str(folder / "documents.arrow")))
    return Corpus(reader.read_all(), tuple(streams), (*told, *decisions), key)


def _check_shares(recipe: CorpusRecipe, names: Iterable[str]) -> None:
    """UserError for shares that are not of the sources or go to none; before all is read."""
    if not recipe.shares:
        return
    if set(recipe.shares) != set(names):
        raise UserError(
            f"corpus.shares is of {', '.join(sorted(recipe.shares))}, but the sources are "
            f"{', '.join(sorted(names))}: name each of them once."
        )
    courses = [np.atleast_1d(np.asarray(course)) for course in recipe.shares.values()]
    if len({len(course) for course in courses} - {1}) > 1:
        raise UserError("corpus.shares: each source has one number, or as many as the others.")
    if not np.all(sum(courses)):
        raise UserError("corpus.shares: at some time of the run all sources have the share 0.")


def _opened(where: str, recipe: CorpusRecipe, part: int | None) -> _Stream:
    source = open_source(where, recipe.encoding)
    asked, said, whole = None, source.said, recipe.documents == "files"
    if not is_text(source.files[0]):
        asked = recipe.text_column
    columns = choose_columns(source.columns, asked, None, labels_required=False, where=where)
    fingerprint = source.fingerprint()
    if asked is not None:
        fingerprint += f" {asked}"
    if len(source.columns) > 1:
        said = (*said, f'texts in column "{columns.text}"')
    return _Stream(
        fingerprint, lambda: documents(source, columns.text, whole_files=whole), part, said
    )


def _texts_of(dataset: Dataset, part: int) -> Iterator[str]:
    for texts in dataset.text_batches(dataset.part(part)):
        yield from texts


def batched(texts: Iterable[str], size: int, signs: int) -> Iterator[list[str]]:
    """Lists of so many texts, or of fewer that have so many signs; the last one shorter."""
    batch: list[str] = []
    read = 0
    for text in texts:
        batch.append(text)
        read += len(text)
        if len(batch) == size or read >= signs:
            yield batch
            batch, read = [], 0
    if batch:
        yield batch


def documents(source: Source, text_column: str, *, whole_files: bool = False) -> Iterator[str]:
    """The documents of a source, their lines joined by line feeds.

    whole_files  whether a text file is one document, its empty lines included
    """
    lines: list[str] = []
    for chunk in source.chunks():
        texts = as_strings(chunk.table.column(text_column), text_column).to_pylist()
        if not is_text(chunk.file):
            yield from filter(None, texts)
            continue
        if chunk.first_row == 1 and lines:  # a file ends a document
            yield "\n".join(lines)
            lines = []
        for line in texts:
            if whole_files or (line and line.strip()):
                lines.append(line or "")
            elif lines:
                yield "\n".join(lines)
                lines = []
    if lines:
        yield "\n".join(lines)


class _Cleaning:
    """What is kept of the documents, and the count of what is not."""

    def __init__(self, recipe: CorpusRecipe, seed: int):
        self.recipe = recipe
        self.seed = seed
        self.seen: set[int] = set()
        self.similar = RMinHashDeduplicator(_SIMILAR, num_perm=_PERMUTATIONS, use_lsh=True)
        self.numbers = count()
        self.dropped: Counter[str] = Counter()

    def write(self, streams: dict[str, list[_Stream]], folder: Path) -> None:
        """Write documents.arrow and decisions.json."""
        read: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        with pa.ipc.new_file(str(folder / "documents.arrow"), _SCHEMA) as writer:
            for number, (name, several) in enumerate(streams.items()):
                for stream in several:
                    for texts in batched(stream.documents(), _BATCH, _SIGNS):
                        if stream.part == TEST:
                            self._hold_back(texts)
                            continue
                        read[name] += len(texts)
                        texts = self._clean(texts)
                        kept[name] += len(texts)
                        part = stream.part
                        parts = [self._part(one) if part is None else part for one in texts]
                        writer.write_batch(_record(texts, number, parts))
        if not kept.total():
            raise UserError("Not one document is left after cleaning.")
        decisions = [
            Decision(f"source {name}", 0, f"{name}: {kept[name]:,} of {documents:,} documents")
            for name, documents in read.items()
        ] + [
            Decision(why, documents, f"dropped: {documents:,} documents ({why})")
            for why, documents in self.dropped.items()
            if documents
        ]
        text = json.dumps([vars(one) for one in decisions], ensure_ascii=False)
        (folder / "decisions.json").write_text(text, encoding="utf-8")

    def _hold_back(self, texts: Iterable[str]) -> None:
        """Have these texts, and what is nearly the same, dropped wherever they come."""
        counted = self.dropped.copy()
        self._clean(texts)
        self.dropped = counted

    def _clean(self, texts: Iterable[str]) -> list[str]:
        kept = []
        for text in texts:
            why = self._fault(text)
            if why is None:
                kept.append(text)
            else:
                self.dropped[why] += 1
        if self.recipe.similar == "keep":
            return kept
        shingles = [_shingles(text) for text in kept]
        # Short ones are alike by chance; repeated ones are gone already.
        long = [index for index, found in enumerate(shingles) if found]
        new = self.similar.add_pairs((str(next(self.numbers)), shingles[index]) for index in long)
        old = {index for index, is_new in zip(long, new, strict=True) if not is_new}
        self.dropped["nearly the same as another"] += len(old)
        return [text for index, text in enumerate(kept) if index not in old]

    def _fault(self, text: str) -> str | None:
        """Why a text is of no use, or None."""
        letters = sum(letter.isalpha() for letter in text)
        if letters < self.recipe.letters_share * sum(not sign.isspace() for sign in text):
            return "few letters"
        if self.recipe.language == "ru" and not mostly_russian([text]):
            return "not in Russian letters"
        key = duplicate_key(text)
        if key in self.seen:
            return "the same but for case and spaces"
        self.seen.add(key)
        return None

    def _part(self, text: str) -> int:
        """By the text alone, so that it is the same whatever stands beside it."""
        digest = hashlib.blake2b(text.encode(), digest_size=8, salt=self.seed.to_bytes(8, "little"))
        place = int.from_bytes(digest.digest(), "little") / 2**64
        return VALIDATION if place < self.recipe.validation_share else TRAIN


def _shingles(text: str) -> list[str]:
    """Runs of some words (Broder 1997); none for a text of few words."""
    words = re.findall(r"\w+", text.casefold())
    if len(words) < 2 * _SHINGLE_WORDS:
        return []
    starts = range(len(words) - _SHINGLE_WORDS + 1)
    return [" ".join(words[start : start + _SHINGLE_WORDS]) for start in starts]


def _record(texts: list[str], source: int, parts: list[int]) -> pa.RecordBatch:
    sources = np.full(len(texts), source, dtype=np.int16)
    columns = [pa.array(texts, pa.large_string()), sources, np.array(parts, dtype=np.int8)]
    return pa.record_batch(columns, schema=_SCHEMA)
