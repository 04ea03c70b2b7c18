"""Files of rows, found and streamed as Arrow record batches in flat memory.

CSV, TSV and Parquet are read by Arrow. JSON lines go through the standard library's parser:
Arrow's streaming one settles columns and types by its first block, so that a field which is null,
absent or an integer there is an error further on, and it takes strings that look like dates for
dates.
"""

import bisect
import csv
import difflib
import glob
import hashlib
import io
import itertools
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from igla.data.textfile import COMPRESSIONS, Utf8Stream, check_encoding
from igla.errors import UserError
from igla.sealed import file_digest

# How much text makes a chunk. Arrow reads up to 32 blocks ahead of a slow consumer.
BLOCK_BYTES = 1 << 20
# A CSV row that does not fit a block is read with larger ones, up to this.
LARGEST_BLOCK_BYTES = 64 << 20
PARQUET_ROWS = 4096

TEXT_FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt")
_SUPPORTED = f"{', '.join(TEXT_FORMATS)}, each also with {', '.join(COMPRESSIONS)}, and .parquet"

# What Arrow raises for Python values that no array can hold together.
_MISFITS = (pa.ArrowException, OverflowError, UnicodeEncodeError)

_Batches: TypeAlias = Generator[pa.RecordBatch, None, None]


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of one file.

    first_row  number of the first of them in the file, counted from 1 without the header
    table      all columns of the source, by name. Those of CSV, TSV and text files are strings,
               null where a field is empty and not quoted. Those of JSON lines have the types of
               the values in this chunk (a column of integers may hold fractions in the next), and
               fields that first turn up in this chunk come as further columns.
    """

    file: Path
    first_row: int
    table: pa.RecordBatch


@dataclass(frozen=True)
class Source:
    """Files with the same columns.

    encoding  of the text files among them; UTF-8 if None
    columns   those of the first file
    said      what was decided without being asked, one line each
    """

    files: tuple[Path, ...]
    encoding: str | None
    columns: tuple[str, ...]
    said: tuple[str, ...]

    def chunks(self) -> Iterator[Chunk]:
        """All rows, file after file. Raises UserError for a row that cannot be read."""
        for file in self.files:
            first_row = 1
            for table in _batches(file, self.encoding):
                yield Chunk(file, first_row, table)
                first_row += table.num_rows

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the encoding and of format and bytes of all files in order.

        The same bytes under another name have the same fingerprint.
        """
        parts = [[*_format(file), file_digest(file)] for file in self.files]
        return hashlib.sha256(json.dumps([self.encoding, parts]).encode()).hexdigest()


def open_source(where: str | Path, encoding: str | None = None) -> Source:
    """Find the files that `where` names, and read the first rows of each.

    `where` is a file, a folder (what it holds at any depth, hidden files and folders left out) or
    a glob; the files are sorted by name. `encoding` concerns text files only. Raises UserError for
    files that are missing, unreadable, empty, of no supported format or in another encoding, and
    for files with different columns.
    """
    if encoding is not None:
        check_encoding(encoding)
    files, said = _find(Path(where).expanduser())
    columns: tuple[str, ...] = ()
    for file in files:
        own = _columns(file, encoding)
        columns = columns or own
        if set(own) != set(columns):
            raise UserError(
                f"{file} has the columns {_quoted(own)}, but {files[0]} has {_quoted(columns)}; "
                "give all files the same columns or read them apart."
            )
        if _format(file)[0] == ".csv":
            delimiter = _csv_layout(file, encoding).delimiter
            if delimiter != ",":
                said.append(f"{file} is split at {delimiter!r}, since its header has no comma")
    return Source(tuple(files), encoding, columns, tuple(said))


def _find(where: Path) -> tuple[list[Path], list[str]]:
    """The files to read, and a line about those beside them that are left out."""
    try:
        found = _candidates(where)
        files = sorted(file for file in found if _is_supported(file))
        for file in files:
            file.open("rb").close()
    except PermissionError as error:
        raise UserError(
            f"{error.filename} may not be read (permission denied); allow it with chmod."
        ) from None
    if not files:
        raise UserError(f"{where} holds no file of a supported format ({_SUPPORTED}).")
    others = sorted(str(file) for file in found if not _is_supported(file))
    if not others:
        return files, []
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return files, [f"left out, being of no supported format: {', '.join(others[:5])}{more}"]


def _candidates(where: Path) -> list[Path]:
    if where.is_file():
        if not _is_supported(where):
            raise UserError(_unsupported(where))
        return [where]
    if where.is_dir():
        return [
            path
            for path in where.rglob("*")
            if path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(where).parts)
        ]
    matches = [Path(name) for name in glob.glob(str(where), recursive=True)]
    if matches:
        return [path for path in matches if path.is_file()]
    if glob.escape(str(where)) != str(where):
        raise UserError(f"No file matches {where}; check the folder and the pattern.")
    if not where.parent.is_dir():
        raise UserError(f"There is no folder {where.parent}; check the path to {where.name}.")
    near = difflib.get_close_matches(where.name, [path.name for path in where.parent.iterdir()], 1)
    hint = f"did you mean {where.with_name(near[0])}?" if near else "check the path."
    raise UserError(f"There is no {where}; {hint}")


def _format(file: Path) -> tuple[str, str]:
    """Its format and compression as suffixes in lower case, the latter empty for none."""
    compression = file.suffix.casefold()
    if compression in COMPRESSIONS:
        return Path(file.stem).suffix.casefold(), compression
    return compression, ""


def is_text(file: Path) -> bool:
    """Whether a file is no table but a text, of one column named "text" with its lines."""
    return _format(file)[0] == ".txt"


def _is_supported(file: Path) -> bool:
    kind, compression = _format(file)
    return kind in TEXT_FORMATS or (kind, compression) == (".parquet", "")


def _unsupported(file: Path) -> str:
    kind, compression = _format(file)
    if kind in (".xlsx", ".xls", ".xlsm", ".ods"):
        return f"{file} is a spreadsheet; save it as CSV (UTF-8) and name that file."
    if kind == ".parquet":
        return f"{file}: Parquet is compressed inside; unpack the {compression} and name that file."
    return f"{file} is of no supported format; supported are {_SUPPORTED}."


def _columns(file: Path, encoding: str | None) -> tuple[str, ...]:
    with closing(_batches(file, encoding)) as batches:
        first = next(batches, None)
    if first is None or first.num_columns == 0:
        missing = "has a header but no rows" if _format(file)[0] in (".csv", ".tsv") else "is empty"
        raise UserError(f"{file} {missing}; give it rows or leave it out.")
    names: tuple[str, ...] = tuple(first.schema.names)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f'{file} has two columns named "{twice[0]}"; rename one of them.')
    return names


def _batches(file: Path, encoding: str | None) -> _Batches:
    kind, _ = _format(file)
    if kind in (".csv", ".tsv"):
        return _csv_batches(file, encoding)
    if is_text(file):
        return _txt_batches(file, encoding)
    if kind == ".parquet":
        return _parquet_batches(file)
    return _json_batches(file, encoding)


def _lines(file: Path, encoding: str | None, newline: str | None) -> io.TextIOWrapper:
    buffered = io.BufferedReader(Utf8Stream(file, encoding), buffer_size=BLOCK_BYTES)
    return io.TextIOWrapper(buffered, encoding="utf-8", newline=newline)


# ------------------------------------------------------------------------------------------- CSV


@dataclass(frozen=True)
class _Layout:
    delimiter: str
    names: list[str]
    empty_lines: int  # before the header


def _csv_batches(file: Path, encoding: str | None) -> _Batches:
    layout = _csv_layout(file, encoding)
    done, block_bytes = 0, BLOCK_BYTES
    while block_bytes <= LARGEST_BLOCK_BYTES:
        try:
            with closing(_parse_csv(file, encoding, layout, block_bytes)) as batches:
                for batch in _without_first(batches, done):
                    done += batch.num_rows
                    yield batch
            return
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):  # A header without a line feed.
                return
            if "straddling" not in str(error):
                raise _csv_mistake(file, encoding, layout, error) from None
        block_bytes *= 8
    raise UserError(
        f"{file}, row {done + 1} is longer than {LARGEST_BLOCK_BYTES >> 20} MB, so that a "
        "quotation mark is probably opened there and never closed; "
        "close it, or double it if it belongs to the text."
    )


def _csv_layout(file: Path, encoding: str | None) -> _Layout:
    with _lines(file, encoding, newline="") as lines:
        empty_lines = 0
        for header in lines:
            if header.strip("\r\n"):
                break
            empty_lines += 1
        else:
            raise UserError(f"{file} is empty; give it a header and rows or leave it out.")
        if _format(file)[0] == ".tsv":
            delimiter = "\t"
        else:
            # Excel writes semicolons where the comma is the decimal mark.
            delimiter = next((mark for mark in (",", ";", "\t") if mark in header), ",")
        try:
            names = next(csv.reader(itertools.chain([header], lines), delimiter=delimiter))
        except csv.Error as error:
            raise UserError(
                f"{file} begins with no header of a CSV file ({error}); "
                "let its first line name the columns."
            ) from None
    return _Layout(delimiter, names, empty_lines)


def _parse_csv(file: Path, encoding: str | None, layout: _Layout, block_bytes: int) -> _Batches:
    names = layout.names
    with Utf8Stream(file, encoding) as stream:
        reader = pyarrow.csv.open_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(
                block_size=block_bytes, skip_rows=layout.empty_lines
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=layout.delimiter,
                newlines_in_values=True,
                # An empty line is a row of a file with one column and no row of any other.
                ignore_empty_lines=len(names) > 1,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        last_field = None
        for batch in reader:
            if batch.num_rows:
                yield batch
                last_field = batch.column(batch.num_columns - 1)[-1].as_py()
        if last_field is not None and _is_open(last_field, stream.tail):
            raise UserError(
                f"{file}: the last field of its last row opens a quotation mark that is never "
                f"closed, which makes a text of {len(last_field)} characters of all that follows "
                f"({last_field[:40]!r} …); close it, or double it if it belongs to the text."
            )


def _is_open(last_field: str, tail: bytes) -> bool:
    """Whether a file ends inside a quoted field, which Arrow takes for a whole one.

    Only a quoted field has line feeds in it, and it ends with one quotation mark after any number
    of doubled ones.
    """
    if "\n" not in last_field and "\r" not in last_field:
        return False
    tail = tail.rstrip(b"\r\n")
    return (len(tail) - len(tail.rstrip(b'"'))) % 2 == 0


def _without_first(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows > rows:
            yield batch.slice(rows)
        rows -= min(rows, batch.num_rows)


def _csv_mistake(
    file: Path, encoding: str | None, layout: _Layout, error: pa.ArrowInvalid
) -> UserError:
    """Find the row that Arrow's streaming reader refused, whose number it does not tell."""
    width = len(layout.names)
    limit = csv.field_size_limit(LARGEST_BLOCK_BYTES)
    try:
        with _lines(file, encoding, newline="") as lines:
            reader = csv.reader(lines, delimiter=layout.delimiter)
            number, line = 0, 1
            for row in reader:
                if row and len(row) != width:
                    return UserError(
                        f"{file}, row {number} (line {line}) has {len(row)} fields, but the header "
                        f"has {width}; put texts with {layout.delimiter!r} or line feeds in them "
                        "between quotation marks, and double those inside."
                    )
                if row or (width == 1 and line > layout.empty_lines):
                    number += 1
                line = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)
    return UserError(f"{file} cannot be read as CSV: {str(error).splitlines()[0]:.200}.")


# ---------------------------------------------------------------------- JSON lines, text, Parquet


def _json_batches(file: Path, encoding: str | None) -> _Batches:
    names: dict[str, None] = {}
    lines_before = 0
    with _lines(file, encoding, newline="\n") as lines:
        while block := lines.readlines(BLOCK_BYTES):
            rows: dict[int, dict[str, Any]] = {}
            for number, line in enumerate(block, lines_before + 1):
                if not line.isspace():
                    rows[number] = _json_row(file, number, line)
            lines_before += len(block)
            for row in rows.values():
                names.update(dict.fromkeys(row))
            if rows:
                columns = [_json_column(file, name, rows) for name in names]
                yield pa.record_batch(columns, names=list(names))


def _json_row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        found = f"is not JSON ({error.msg}, column {error.colno})"
    except (ValueError, RecursionError) as error:
        found = f"cannot be read ({error})"
    else:
        if isinstance(row, dict):
            return row
        found = "is no JSON object"
    raise UserError(
        f"{file}, line {number} {found}; write one object a line "
        "(jq -c '.[]' makes such lines of an array, jq -c . of objects over several lines)."
    )


def _json_column(file: Path, name: str, rows: dict[int, dict[str, Any]]) -> pa.Array:
    values = [row.get(name) for row in rows.values()]
    try:
        return pa.array(values)
    except _MISFITS as error:
        index = bisect.bisect_left(
            range(len(values)), True, key=lambda end: not _go_together(values[: end + 1])
        )
        raise UserError(
            f'{file}, line {list(rows)[index]}: the value of "{name}" does not go with those '
            f"before it ({error}); write values of one kind in all rows."
        ) from None


def _go_together(values: Sequence[Any]) -> bool:
    try:
        pa.array(values)
    except _MISFITS:
        return False
    return True


def _txt_batches(file: Path, encoding: str | None) -> _Batches:
    with _lines(file, encoding, newline=None) as lines:
        while block := lines.readlines(BLOCK_BYTES):
            texts = [line.removesuffix("\n") or None for line in block]
            yield pa.record_batch([pa.array(texts, pa.string())], names=["text"])


def _parquet_batches(file: Path) -> _Batches:
    try:
        with pyarrow.parquet.ParquetFile(file, buffer_size=BLOCK_BYTES) as opened:
            yield from opened.iter_batches(batch_size=PARQUET_ROWS)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{file} is damaged or no Parquet file ({error}); fetch or write it again."
        ) from None


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
