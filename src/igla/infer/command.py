"""What `igla predict` does."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from igla.data.columns import choose_columns
from igla.data.rows import as_strings
from igla.data.source import open_source
from igla.errors import UserError
from igla.infer.classifier import Classifier, model_folder
from igla.infer.precision import compute_in, wanted
from igla.terminal import plain_console


def predict_texts(run: str, texts: Sequence[str] | None, precision: str = "float32") -> None:
    """Print one line a text: label, score of each class, text. Texts come from stdin if None."""
    if texts is None and sys.stdin.isatty():
        raise UserError("Give texts as arguments, through stdin, or as a file with --data.")
    classifier = _opened_in(precision, run)
    lines = (line.rstrip("\n") for line in sys.stdin) if texts is None else iter(texts)
    for text in lines:
        probabilities = classifier.probabilities([text])
        pairs = zip(classifier.rule.classes, probabilities[0], strict=True)
        scores = "  ".join(f"{name} {score:.4f}" for name, score in pairs)
        print(f"{classifier.rule.names(probabilities)[0]}\t{scores}\t{text}", flush=True)


def predict_file(
    run: str,
    data: str,
    output: Path | None,
    text_column: str | None,
    encoding: str | None,
    precision: str = "float32",
) -> None:
    """The rows of a file, in their order and with their columns, and a label and scores added.

    Written as CSV, or JSONL where the name of the output says so; to stdout without an output.
    """
    if output is not None and output.suffix not in WRITERS:
        raise UserError(f"{output} ends in none of {', '.join(WRITERS)}; choose one of them.")
    if output is not None and not output.parent.is_dir():
        raise UserError(f"There is no folder {output.parent} for {output.name}; make it first.")
    classifier = _opened_in(precision, run)
    source = open_source(data, encoding)
    columns = choose_columns(source.columns, text_column, None, labels_required=False, where=data)
    console = plain_console(stderr=True)
    for line in (*source.said, columns.said):
        console.print(line)
    rows = empty = 0
    with (
        _opened(output) as file,
        Progress(
            TextColumn("{task.description}"), TimeElapsedColumn(), console=console
        ) as progress,
    ):
        write = WRITERS[output.suffix if output else ".csv"]
        task = progress.add_task("", total=None)
        for chunk in source.chunks():
            texts = as_strings(chunk.table.column(columns.text), columns.text).to_pylist()
            empty += sum(not text for text in texts)
            table = _with_answers(chunk.table, source.columns, classifier, texts)
            write(table, file, rows == 0)
            rows += len(texts)
            progress.update(task, description=f"{rows:,} rows")
    if empty:
        console.print(f"{empty:,} rows have no text; they were scored as an empty one")
    if output is not None:
        console.print(f"wrote {rows:,} rows to {output}")


def _opened_in(precision: str, run: str) -> Classifier:
    """The classifier of a run or folder, to answer in a precision."""
    asked = wanted(precision)
    classifier = Classifier.load(model_folder(run))
    reason = compute_in(classifier.model, asked)
    if reason is not None and asked == "int8":
        plain_console(stderr=True).print(f"int8 is computed by torch, which is slower: {reason}")
    return classifier


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """The output file, which appears under its name when it is complete; or stdout."""
    if output is None:
        yield sys.stdout.buffer
        return
    making = output.with_name(f".{output.name}.unfinished")
    try:
        with making.open("wb") as file:
            yield file
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    making.replace(output)


def _with_answers(
    table: pa.RecordBatch, names: Sequence[str], classifier: Classifier, texts: list[str | None]
) -> pa.Table:
    """The input's columns, then `label` and `score_CLASS`; a column they displace gets `_input`."""
    rule = classifier.rule
    probabilities = classifier.probabilities([text or "" for text in texts])
    added = {"label": pa.array(rule.names(probabilities))}
    for column, name in enumerate(rule.classes):
        added[f"score_{name}"] = pa.array(np.round(probabilities[:, column], 6))
    kept = {f"{name}_input" if name in added else name: table.column(name) for name in names}
    return pa.table(kept | added)


def _write_csv(table: pa.Table, file: BinaryIO, first: bool) -> None:
    flat = {
        name: pa.array([json.dumps(value, ensure_ascii=False) for value in column.to_pylist()])
        if pa.types.is_nested(column.type)
        else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    options = pyarrow.csv.WriteOptions(include_header=first, quoting_style="needed")
    pyarrow.csv.write_csv(pa.table(flat), file, options)


def _write_jsonl(table: pa.Table, file: BinaryIO, first: bool) -> None:
    for row in table.to_pylist():
        file.write((json.dumps(row, ensure_ascii=False, default=str) + "\n").encode())


WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl}
