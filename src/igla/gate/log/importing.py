"""Feedback from a file, with the outcomes' names or the numbers of the older format."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from igla.data.columns import choose_columns
from igla.data.source import open_source
from igla.errors import UserError
from igla.gate.context import clean, digest, visible
from igla.gate.log import Event, GateLog, NewFeedback, Stored
from igla.gate.log.records import now
from igla.gate.outcomes import MinusOne, outcome_of

_TOGETHER = 1_000


@dataclass(frozen=True)
class Imported:
    """stored  feedbacks that are new in the log
    known   that were there, of the same file or of one with the same rows
    """

    stored: int
    known: int


def import_feedback(
    log: GateLog,
    file: Path,
    minus_one: MinusOne,
    actor: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
) -> Imported:
    """Store the feedback of a CSV, TSV, JSONL or Parquet file, each row once however often the
    file is imported.

    Columns: the text and the label under their usual names, the label also as `outcome`; if they
    are there, `who`, `subject`, `slice` and `at` (ISO 8601). The whole file is read before anything
    is stored; UserError names its first row that will not do.

    minus_one     what −1.0 means in this file
    text_column   where the texts and the outcomes are, if not under a usual name
    label_column
    encoding      of a text file; None: UTF-8
    """
    rows = [*_rows(file, minus_one, text_column, label_column, encoding)]
    stored = known = 0
    for start in range(0, len(rows), _TOGETHER):
        for one in log.write(rows[start : start + _TOGETHER]):
            assert isinstance(one, Stored)  # a row of a text is neither unknown nor capped
            stored, known = stored + (not one.repeated), known + one.repeated
    facts = {"file": file.name, "stored": stored, "known": known, "minus_one": minus_one}
    log.write([Event(event="imported", actor=actor, facts=facts)])
    return Imported(stored, known)


def _rows(
    file: Path,
    minus_one: MinusOne,
    text_column: str | None,
    label_column: str | None,
    encoding: str | None,
) -> Iterator[NewFeedback]:
    source = open_source(file, encoding)
    label = label_column or next(
        (name for name in source.columns if name.casefold() == "outcome"), None
    )
    columns = choose_columns(
        source.columns, text_column, label and [label], labels_required=True, where=str(file)
    )
    (label,) = columns.labels
    seen: Counter[str] = Counter()
    for chunk in source.chunks():
        for number, row in enumerate(chunk.table.to_pylist(), start=chunk.first_row):
            place = f"{chunk.file}, row {number}"
            text, said = row.get(columns.text), row.get(label)
            if text is None or not str(text).strip() or said is None:
                raise UserError(f"{place} has no text or no label.")
            try:
                outcome = outcome_of(str(said), minus_one)
                at = _moment(row.get("at"))
            except (UserError, ValueError, OverflowError) as error:
                raise UserError(f"{place}: {error}") from None
            text = clean(str(text))
            who, subject, part = (_name(row, name) for name in ("who", "subject", "slice"))
            mark = json.dumps([text, outcome.value, who, subject, part, str(row.get("at"))])
            seen[mark] += 1  # equal rows are as many feedbacks
            content = f"{mark} {seen[mark]}"
            yield NewFeedback(
                outcome=outcome,
                text=text,
                context=digest(text),
                who=who,
                subject=subject or None,
                slice=part[:100] or None,
                source="import",
                idempotency_key=f"import-{hashlib.sha256(content.encode()).hexdigest()}",
                at=at,
            )


def _name(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else visible(str(value), 200)


def _moment(value: Any) -> datetime:
    if value is None:
        return now()
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.astimezone()
