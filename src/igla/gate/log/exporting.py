"""The log as a file: CSV, JSON lines or Parquet."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet

from igla.errors import UserError
from igla.gate.log import AuditEntry, Decision, Feedback, GateLog
from igla.sealed import replaced_durably

Row: TypeAlias = dict[str, Any]
_Write: TypeAlias = Callable[[list[Row]], None]

_PAGE = 2_000
_RECORDS = {"feedback": Feedback, "decisions": Decision, "audit": AuditEntry}
# Arrow's types of fields that are no text.
_TYPES = {
    "seq": pa.int64(), "target": pa.int64(), "weight": pa.int64(), "repeats": pa.int64(),
    "probability": pa.float64(), "answered": pa.bool_(), "at": pa.timestamp("us", "UTC"),
}  # fmt: skip


def export(log: GateLog, path: Path, what: str) -> int:
    """Write feedback that stands, decisions or the audit trail to a file; how many rows.

    The ending says in which form. Feedback has a column `label`, allow or block, so that
    `igla train --data` takes the file as it is. UserError for another ending, or another word.
    """
    if what not in _RECORDS:
        raise UserError(f"There is no {what} in a log; there are {', '.join(_RECORDS)}.")
    if path.suffix not in _FORMATS:
        raise UserError(f"{path} ends in none of {', '.join(_FORMATS)}.")
    columns = [one.name for one in fields(_RECORDS[what])]
    if what == "feedback":
        columns.append("label")
    count = 0
    with replaced_durably(path) as making, _FORMATS[path.suffix](making, columns) as write:
        for page in _pages(log, what):
            write([_row(one) for one in page])
            count += len(page)
    return count


def _pages(log: GateLog, what: str) -> Iterator[Sequence[Any]]:
    reads: dict[str, Callable[[int, int], Sequence[Any]]] = {
        "feedback": log.feedback_since,
        "decisions": log.decisions,
        "audit": log.audit,
    }
    read = reads[what]
    page = read(0, _PAGE)
    while page:
        yield page
        page = read(page[-1].seq, _PAGE)


def _row(one: Feedback | Decision | AuditEntry) -> Row:
    row = asdict(one)
    if isinstance(one, Feedback):
        row["outcome"] = one.outcome.value
        row["label"] = "allow" if one.target else "block"
    if isinstance(one, AuditEntry):
        row["facts"] = json.dumps(one.facts, ensure_ascii=False)
    return row


@contextmanager
def _csv(path: Path, columns: list[str]) -> Iterator[_Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        yield lambda rows: writer.writerows(_dated(row) for row in rows)


@contextmanager
def _jsonl(path: Path, columns: list[str]) -> Iterator[_Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda rows: file.writelines(
            json.dumps(_dated(row), ensure_ascii=False) + "\n" for row in rows
        )


@contextmanager
def _parquet(path: Path, columns: list[str]) -> Iterator[_Write]:
    schema = pa.schema([(name, _TYPES.get(name, pa.string())) for name in columns])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema))


_FORMATS: dict[str, Callable[[Path, list[str]], AbstractContextManager[_Write]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def _dated(row: Row) -> Row:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
