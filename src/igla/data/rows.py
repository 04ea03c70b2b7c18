"""All rows of a source in one memory-mapped Arrow file, and what numpy must know of each.

The texts stay on the disk, so that a source may be larger than memory; labels, duplicate keys and
row numbers take some 40 bytes a row.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from igla.data.cache import cached_folder
from igla.data.columns import Columns
from igla.data.source import Source
from igla.errors import UserError

NO_LABEL = -1
_NO_LABEL_SPELLINGS = ("", "nan", "null")
_SCHEMA = pa.schema({"text": pa.large_string(), "file": pa.int32(), "row": pa.int64()})


@dataclass(frozen=True)
class Rows:
    """The rows of a source, all of them, as they came.

    table    texts, memory-mapped, with the file and row number of each
    files    names of the files
    codes    [N, label columns] int32 index into `spellings`, or NO_LABEL
    spellings  one tuple a label column: its distinct values as they were written
    keys     [N] uint64, equal for texts that differ only in case and spaces; 0 without a text
    weights  [N] float32, 1 where no column gives them
    """

    table: pa.Table
    files: tuple[str, ...]
    codes: np.ndarray
    spellings: tuple[tuple[str, ...], ...]
    keys: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def texts(self, rows: np.ndarray) -> list[str]:
        """Texts of the given rows."""
        texts: list[str] = self.table["text"].take(pa.array(rows)).to_pylist()
        return texts

    def text_batches(self, rows: np.ndarray, size: int = 8192) -> Iterator[list[str]]:
        """Texts of the given rows, some at a time."""
        for start in range(0, len(rows), size):
            yield self.texts(rows[start : start + size])

    def place(self, row: int) -> str:
        """Where a row stands, for people."""
        number = self.table["row"][row].as_py()
        return f"{self.files[self.table['file'][row].as_py()]}, row {number}"


def read_rows(source: Source, columns: Columns, weight_column: str | None = None) -> Rows:
    """Read a source once and keep it in the cache, keyed by its bytes and the columns asked for."""
    wanted = json.dumps([source.fingerprint(), columns.text, columns.labels, weight_column])
    key = hashlib.sha256(wanted.encode()).hexdigest()[:32]
    folder = cached_folder(
        "rows", key, lambda making: _convert(source, columns, weight_column, making)
    )
    with (folder / "spellings.json").open(encoding="utf-8") as file:
        spellings = tuple(tuple(column) for column in json.load(file))
    reader = pa.ipc.open_file(pa.memory_map(str(folder / "rows.arrow")))
    return Rows(
        table=reader.read_all(),
        files=tuple(file.name for file in source.files),
        codes=np.load(folder / "codes.npy"),
        spellings=spellings,
        keys=np.load(folder / "keys.npy"),
        weights=np.load(folder / "weights.npy"),
    )


def duplicate_key(text: str) -> int:
    """64 bits that texts share when they differ only in case and spaces."""
    plain = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "little")


def _convert(source: Source, columns: Columns, weight_column: str | None, folder: Path) -> None:
    codes: list[np.ndarray] = []
    keys: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    spellings: list[dict[str, int]] = [{} for _ in columns.labels]
    order = {file: index for index, file in enumerate(source.files)}
    with pa.ipc.new_file(str(folder / "rows.arrow"), _SCHEMA) as writer:
        for chunk in source.chunks():
            count = chunk.table.num_rows
            texts = as_strings(chunk.table.column(columns.text), columns.text)
            numbers = np.arange(chunk.first_row, chunk.first_row + count)
            files = np.full(count, order[chunk.file], dtype=np.int32)
            writer.write_batch(pa.record_batch([texts, files, numbers], schema=_SCHEMA))
            keys.append(_keys(texts))
            columns_of_codes = [
                _codes(as_strings(chunk.table.column(name), name), known)
                for name, known in zip(columns.labels, spellings, strict=True)
            ]
            codes.append(np.array(columns_of_codes, dtype=np.int32).reshape(-1, count).T)
            weights.append(_weights(chunk.table, weight_column, f"{chunk.file.name}", numbers))
    np.save(folder / "codes.npy", np.concatenate(codes))
    np.save(folder / "keys.npy", np.concatenate(keys))
    np.save(folder / "weights.npy", np.concatenate(weights))
    text = json.dumps([list(known) for known in spellings], ensure_ascii=False)
    (folder / "spellings.json").write_text(text, encoding="utf-8")


def as_strings(column: pa.Array, name: str) -> pa.Array:
    """A column as strings; numbers and booleans are spelt as Arrow spells them.

    Raises UserError for lists and structures.
    """
    try:
        return column.cast(pa.large_string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise UserError(
            f"Column '{name}' holds {column.type}, not text or labels; choose another one."
        ) from None


def _keys(texts: pa.Array) -> np.ndarray:
    return np.array(
        [duplicate_key(text) if text and text.strip() else 0 for text in texts.to_pylist()],
        dtype=np.uint64,
    )


def _codes(values: pa.Array, known: dict[str, int]) -> np.ndarray:
    encoded = pc.dictionary_encode(pc.utf8_trim_whitespace(values))
    local = [
        NO_LABEL if value.casefold() in _NO_LABEL_SPELLINGS else known.setdefault(value, len(known))
        for value in encoded.dictionary.to_pylist()
    ]
    table = np.array([*local, NO_LABEL], dtype=np.int32)
    return table[encoded.indices.fill_null(len(local)).to_numpy(zero_copy_only=False)]


def _weights(
    table: pa.RecordBatch, column: str | None, file: str, numbers: np.ndarray
) -> np.ndarray:
    if column is None:
        return np.ones(table.num_rows, dtype=np.float32)
    if column not in table.schema.names:
        raise UserError(f"{file} has no column '{column}' for the weights.")
    try:
        weights = table.column(column).cast(pa.float32()).fill_null(float("nan")).to_numpy()
    except pa.ArrowInvalid as error:
        raise UserError(f"{file}: column '{column}' holds no weights ({error}).") from None
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise UserError(
            f"{file}, row {numbers[wrong[0]]}: the weight in '{column}' is "
            "missing, negative or not finite."
        )
    return np.asarray(weights)


def in_turns(groups: np.ndarray) -> np.ndarray:
    """Places of all rows, so ordered that the groups [N] take turns, each in its own order."""
    turn = np.empty(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        of_it = groups == group
        turn[of_it] = np.arange(of_it.sum())
    return np.argsort(turn, kind="stable")


def sample(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` of the rows, drawn by the seed, in their order."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
