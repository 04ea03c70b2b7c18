import bz2
import csv
import gzip
import io
import json
import lzma
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from igla.data import source as source_module
from igla.data.source import open_source
from igla.errors import UserError

SHARED = Path(__file__).parents[2] / "../shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def rows_of(where, encoding=None):
    chunks = open_source(where, encoding).chunks()
    return [row for chunk in chunks for row in chunk.table.to_pylist()]


def message(where, encoding=None):
    with pytest.raises(UserError) as raised:
        rows_of(where, encoding)
    text = str(raised.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------------- CSV


def test_a_quoted_line_feed_a_comma_and_a_doubled_quote_stay_inside_their_field(tmp_path):
    file = write(tmp_path / "a.csv", 'text,label\n"one\ntwo, ""three""",1\r\nfour,0\n')
    assert rows_of(file) == [
        {"text": 'one\ntwo, "three"', "label": "1"},
        {"text": "four", "label": "0"},
    ]


def test_only_an_unquoted_empty_field_is_null(tmp_path):
    file = write(tmp_path / "a.csv", 'text,label\n,1\n"",NA\nnull,nan\n')
    assert rows_of(file) == [
        {"text": None, "label": "1"},
        {"text": "", "label": "NA"},
        {"text": "null", "label": "nan"},
    ]


def test_every_csv_column_is_a_string(tmp_path):
    file = write(tmp_path / "a.csv", "text,label,day\n007,1.0,2020-01-01\n")
    (chunk,) = open_source(file).chunks()
    assert set(chunk.table.schema.types) == {pa.string()}
    assert chunk.table.to_pylist() == [{"text": "007", "label": "1.0", "day": "2020-01-01"}]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    file = write(tmp_path / "a.csv", b'\xef\xbb\xbf"text",label\na,1\n')
    assert open_source(file).columns == ("text", "label")
    assert open_source(file, "utf-8").columns == ("text", "label")


def test_tab_separated_values_keep_their_commas(tmp_path):
    file = write(tmp_path / "a.tsv", 'text\tlabel\na, b\t1\n"c\td"\t0\n')
    assert [row["text"] for row in rows_of(file)] == ["a, b", "c\td"]


def test_a_csv_with_semicolons_is_read_and_it_is_said(tmp_path):
    file = write(tmp_path / "a.csv", "текст;метка\nраз, два;1\n")
    assert rows_of(file) == [{"текст": "раз, два", "метка": "1"}]
    assert open_source(file).said == (f"{file} is split at ';', since its header has no comma",)


def test_empty_lines_are_no_rows_where_a_row_has_several_fields(tmp_path):
    assert len(rows_of(write(tmp_path / "a.csv", "text,label\n\na,1\n\n\nb,2\n\n"))) == 2


def test_an_empty_line_is_an_empty_row_of_an_only_column(tmp_path):
    file = write(tmp_path / "a.csv", "text\na\n\nb\n")
    assert rows_of(file) == [{"text": "a"}, {"text": None}, {"text": "b"}]


def test_empty_lines_before_the_header_are_skipped(tmp_path):
    for name in ("text", "text,label"):
        file = write(tmp_path / "a.csv", f"\r\n\n{name}\n{name}\n")
        assert rows_of(file) == [{part: part for part in name.split(",")}]


def test_a_row_with_too_many_fields_is_named(tmp_path):
    file = write(tmp_path / "a.csv", 'text,label\na,1\n"b\nb",2\nc, d,3\n')
    text = message(file)
    assert f"{file}, row 3 (line 5) has 3 fields, but the header has 2; put texts with ','" in text


def test_a_row_with_too_few_fields_is_named_far_into_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 64)
    file = write(tmp_path / "a.csv", "text,label\n" + "abc,1\n" * 1000 + "\nabc\n" + "abc,1\n" * 9)
    chunks = open_source(file).chunks()
    read = 0
    with pytest.raises(UserError, match=r"row 1001 \(line 1003\) has 1 fields"):
        for chunk in chunks:
            read += chunk.table.num_rows
    assert read > 900


def test_an_overlong_field_does_not_hide_the_place_of_a_wrong_row(tmp_path):
    file = write(tmp_path / "a.csv", f'text,label\n"{"x" * 300_000}",1\nonly\n')
    limit = csv.field_size_limit()
    assert "row 2 (line 3)" in message(file)
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("end", ["", "\n", '""\n'])
def test_a_last_quotation_mark_that_is_never_closed_is_an_error(tmp_path, end):
    file = write(tmp_path / "a.csv", f'label,text\n1,a\n2,"b\n3,c\n4,d{end}')
    text = message(file)
    assert "opens a quotation mark that is never closed" in text
    assert "'b\\n3,c" in text


@pytest.mark.parametrize("end", ['"', '"\n', '"\r\n\r\n', '"""\n', '\n"\n'])
def test_a_closed_last_field_with_line_feeds_is_no_error(tmp_path, end):
    file = write(tmp_path / "a.csv", f'label,text\n1,"a\nb{end}')
    assert len(rows_of(file)) == 1


def test_an_unclosed_quotation_mark_in_a_middle_field_is_an_error(tmp_path):
    file = write(tmp_path / "a.csv", 'text,label\na,1\n"b,2\nc,3\n')
    assert "row 2 (line 3) has 1 fields" in message(file)


def test_a_row_longer_than_any_block_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr(source_module, "LARGEST_BLOCK_BYTES", 1 << 13)
    file = write(tmp_path / "a.csv", 'text,label\na,1\nb,"2' + "\nc,3" * 10_000)
    assert f"{file}, row 2 is longer than" in message(file)


def test_fields_larger_than_a_block_are_read_once_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 256)
    lengths = [3, 5, 1000, 4, 9000, 2, 700] * 20
    file = tmp_path / "a.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([["text", "label"], *[["я" * n, n] for n in lengths]])
    chunks = list(open_source(file).chunks())
    rows = [row for chunk in chunks for row in chunk.table.to_pylist()]
    assert [len(row["text"]) for row in rows] == lengths
    assert [chunk.first_row for chunk in chunks] == first_rows(chunks)


def test_a_field_larger_than_the_default_block_is_read(tmp_path):
    file = write(tmp_path / "a.csv", 'text,label\na,1\n"' + "long\n" * 400_000 + '",2\nb,3\n')
    assert [len(row["text"]) for row in rows_of(file)] == [1, 2_000_000, 1]


def first_rows(chunks):
    return [1 + sum(chunk.table.num_rows for chunk in chunks[:at]) for at in range(len(chunks))]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "a.parquet"])
def test_a_file_of_several_blocks_comes_in_chunks_with_their_first_rows(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 200)
    monkeypatch.setattr(source_module, "PARQUET_ROWS", 64)
    texts = [f"text {number}" for number in range(500)]
    file = tmp_path / name
    if name == "a.csv":
        write(file, "text\n" + "\n".join(texts))
    elif name == "a.jsonl":
        write(file, "\n".join(json.dumps({"text": text}) for text in texts))
    elif name == "a.txt":
        write(file, "\n".join(texts))
    else:
        pq.write_table(pa.table({"text": texts}), file)
    chunks = list(open_source(file).chunks())
    assert len(chunks) > 5
    assert [chunk.first_row for chunk in chunks] == first_rows(chunks)
    assert [row["text"] for chunk in chunks for row in chunk.table.to_pylist()] == texts
    assert {chunk.file for chunk in chunks} == {file}


def test_two_columns_of_one_name_are_an_error(tmp_path):
    file = write(tmp_path / "a.csv", "text,label,text\na,1,b\n")
    assert 'two columns named "text"; rename' in message(file)
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), tmp_path / "a.parquet"
    )
    assert 'two columns named "text"' in message(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt", "a.csv.gz"])
def test_a_file_without_bytes_is_an_error(tmp_path, name):
    assert "is empty" in message(write(tmp_path / name, b""))


@pytest.mark.parametrize("content", ["\n\n", "\ufeff", "\r\n"])
def test_a_csv_of_nothing_is_an_error(tmp_path, content):
    assert "is empty" in message(write(tmp_path / "a.csv", content))


@pytest.mark.parametrize("header", ["text,label", "text,label\n", "text\n", "text,label\n\n"])
def test_a_header_without_rows_is_an_error(tmp_path, header):
    assert "has a header but no rows" in message(write(tmp_path / "a.csv", header))


def test_a_parquet_file_without_rows_is_an_error(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert "is empty" in message(tmp_path / "a.parquet")


texts = st.text(
    alphabet=st.one_of(st.sampled_from('",\n\r\t; aя😀\u2028\ufeff'), st.characters(codec="utf-8")),
    max_size=30,
).filter(lambda text: "\0" not in text)


@settings(deadline=None, max_examples=300)
@given(rows=st.lists(st.tuples(texts, texts), min_size=1), block=st.integers(24, 400))
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows, block):
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        # Small blocks put their borders into every place: quotes, line ends, characters.
        patch.setattr(source_module, "BLOCK_BYTES", block)
        read = [(row["text"] or "", row["label"] or "") for row in rows_of(file)]
    assert read == rows


# -------------------------------------------------------------------------------------- JSON lines


def test_json_values_keep_their_types(tmp_path):
    lines = [
        {"text": "a", "label": 1, "sure": True, "share": 0.5, "day": "2020-01-01"},
        {"text": None, "label": 0, "sure": False, "share": 1.5, "day": ""},
    ]
    file = write(tmp_path / "a.jsonl", "".join(json.dumps(line) + "\r\n" for line in lines))
    assert rows_of(file) == lines


def test_nested_json_is_left_as_it_comes(tmp_path):
    row = {"messages": [{"role": "user", "content": "Как дела?\u2028"}], "meta": {"n": [1, 2]}}
    file = write(tmp_path / "a.ndjson", json.dumps(row, ensure_ascii=False))
    assert rows_of(file) == [row]


def test_empty_lines_between_json_rows_are_no_rows(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"text": "a"}\n\n  \n{"text": "b"}\n\n')
    assert [row["text"] for row in rows_of(file)] == ["a", "b"]


def test_a_field_that_is_null_or_absent_at_first_may_come_later(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 30)
    file = write(
        tmp_path / "a.jsonl",
        '{"text": "a", "label": null}\n{"text": "b", "label": 1}\n'
        '{"label": 0.5}\n{"text": "d", "label": 1, "note": "x"}\n',
    )
    chunks = list(open_source(file).chunks())
    assert len(chunks) > 1
    assert open_source(file).columns == ("text", "label")
    assert chunks[-1].table.schema.names == ["text", "label", "note"]
    columns: dict[str, list[object]] = {name: [] for name in ("text", "label")}
    for chunk in chunks:
        for name, values in columns.items():
            values += chunk.table.column(name).to_pylist()
    assert columns == {"text": ["a", "b", None, "d"], "label": [None, 1, 0.5, 1]}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ('{"text": "c"', "is not JSON (Expecting ',' delimiter"),
        ("text", "is not JSON (Expecting value, column 1)"),
        ('"c"', "is no JSON object"),
        ('{"text": ' + "[" * 100_000, "cannot be read"),
    ],
)
def test_a_malformed_json_line_is_named(tmp_path, bad, why):
    file = write(tmp_path / "a.jsonl", f'{{"text": "a"}}\n\n{{"text": "b"}}\n{bad}\n')
    text = message(file)
    assert f"{file}, line 4 {why}" in text
    assert "one object a line" in text


@pytest.mark.parametrize("content", ['[{"text": "a"}]', '[\n{"text": "a"}\n]', '{\n"text": "a"}'])
def test_json_that_is_not_one_object_a_line_is_explained(tmp_path, content):
    text = message(write(tmp_path / "a.json", content))
    assert "line 1" in text
    assert "jq -c" in text


@pytest.mark.parametrize("value", ['"one"', str(2**70), '"\\ud83d"', '{"a": 1}'])
def test_json_values_that_do_not_go_together_are_named(tmp_path, value):
    lines = [f'{{"text": "a", "label": {label}}}' for label in (1, 2, 3, value, 5, value)]
    file = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert f'{file}, line 4: the value of "label" does not go with' in message(file)


# -------------------------------------------------------------------------------- text and Parquet


def test_each_line_of_a_text_file_is_a_row_and_an_empty_one_is_null(tmp_path):
    file = write(tmp_path / "a.txt", 'one\n\n"two, three\r\n  \nfour\u2028five')
    values = [row["text"] for row in rows_of(file)]
    assert values == ["one", None, '"two, three', "  ", "four\u2028five"]


def test_parquet_columns_come_as_they_are(tmp_path):
    table = pa.table({"text": ["a", None], "label": [1, 0], "tags": [["x"], []]})
    pq.write_table(table, tmp_path / "a.parquet")
    (chunk,) = open_source(tmp_path / "a.parquet").chunks()
    assert chunk.table.schema == table.schema
    assert chunk.table.to_pylist() == table.to_pylist()


@pytest.mark.parametrize("keep", [0, 50, -20])
def test_a_damaged_parquet_file_is_an_error(tmp_path, keep):
    pq.write_table(pa.table({"text": ["a" * 100] * 100}), tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    assert "damaged or no Parquet file" in message(write(tmp_path / "a.parquet", content[:keep]))


# ------------------------------------------------------------------------------------- compression


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.json", "a.txt"])
def test_every_text_format_is_read_compressed(tmp_path, name, compression):
    content = "text\nраз\n" if name.endswith("sv") else '{"text": "раз"}\n'
    if name == "a.txt":
        content = "раз\n"
    file = write(tmp_path / (name + compression), COMPRESS[compression](content.encode()))
    assert rows_of(file) == [{"text": "раз"}]


@pytest.mark.parametrize("compression", COMPRESS)
def test_several_compressed_parts_in_one_file_are_read_on(tmp_path, compression):
    compress = COMPRESS[compression]
    file = write(tmp_path / f"a.txt{compression}", compress(b"a\n") + compress(b"b\n"))
    assert [row["text"] for row in rows_of(file)] == ["a", "b"]


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_truncated_compressed_file_is_an_error(tmp_path, compression):
    content = COMPRESS[compression](os.urandom(200_000).hex().encode())[:-1000]
    file = write(tmp_path / f"a.txt{compression}", content)
    assert f"{file} is damaged or no" in message(file)


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_file_that_is_only_named_compressed_is_an_error(tmp_path, compression):
    file = write(tmp_path / f"a.csv{compression}", "text,label\na,1\n")
    text = message(file)
    assert f"{file} is damaged or no" in text
    assert f"take {compression} from its name" in text


def test_an_encoding_is_decoded_through_compression(tmp_path):
    content = gzip.compress("текст,метка\nпривет,1\n".encode("cp1251"))
    assert rows_of(write(tmp_path / "a.csv.gz", content), "cp1251") == [
        {"текст": "привет", "метка": "1"}
    ]


# ----------------------------------------------------------------------------------- finding files


def test_a_missing_file_is_an_error_that_names_the_nearest(tmp_path):
    write(tmp_path / "comments.csv", "text\na\n")
    text = message(tmp_path / "coments.csv")
    assert text == (
        f"There is no {tmp_path / 'coments.csv'}; did you mean {tmp_path / 'comments.csv'}?"
    )
    assert "check the path" in message(tmp_path / "xyz.jsonl")
    assert f"There is no folder {tmp_path / 'data'}" in message(tmp_path / "data" / "a.csv")


def test_an_unsupported_extension_is_an_error_that_lists_the_supported(tmp_path):
    text = message(write(tmp_path / "a.doc", "text"))
    assert (
        ".csv, .tsv, .jsonl, .ndjson, .json, .txt, each also with .gz, .bz2, .xz, .zst, and" in text
    )
    assert "supported" in message(write(tmp_path / "a.gz", b""))
    assert "save it as CSV" in message(write(tmp_path / "a.xlsx", b"PK\3\4"))
    assert "unpack the .gz" in message(write(tmp_path / "a.parquet.gz", b""))


def test_an_extension_may_be_in_capitals(tmp_path):
    assert rows_of(write(tmp_path / "A.CSV", "text\na\n")) == [{"text": "a"}]
    assert rows_of(write(tmp_path / "A.TXT.GZ", gzip.compress(b"a"))) == [{"text": "a"}]


def test_a_folder_is_read_in_order_at_any_depth_without_hidden_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.csv", "a.csv", "deep/c.csv"):
        write(tmp_path / name, f"text\n{name}\n")
    write(tmp_path / ".hidden/d.csv", "other\nd\n")
    write(tmp_path / ".e.csv", "other\ne\n")
    write(tmp_path / "LICENSE", "none")
    source = open_source(tmp_path)
    assert [file.name for file in source.files] == ["a.csv", "b.csv", "c.csv"]
    assert [(chunk.file.name, chunk.first_row) for chunk in source.chunks()] == [
        ("a.csv", 1),
        ("b.csv", 1),
        ("c.csv", 1),
    ]
    assert source.said == (f"left out, being of no supported format: {tmp_path / 'LICENSE'}",)


def test_a_glob_is_read_in_order(tmp_path):
    for name in ("part-2.csv", "part-1.csv", "other.csv"):
        write(tmp_path / name, f"text\n{name}\n")
    assert [row["text"] for row in rows_of(tmp_path / "part-*.csv")] == ["part-1.csv", "part-2.csv"]


def test_a_glob_without_a_match_is_an_error(tmp_path):
    assert f"No file matches {tmp_path / '*.csv'}" in message(tmp_path / "*.csv")


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    assert rows_of(write(tmp_path / "a[1].txt", "x")) == [{"text": "x"}]


def test_a_folder_without_data_is_an_error(tmp_path):
    write(tmp_path / "README.md", "# none")
    assert "holds no file of a supported format" in message(tmp_path)


def test_files_with_different_columns_are_an_error_that_names_the_odd_one(tmp_path):
    write(tmp_path / "a.csv", "text,label\na,1\n")
    write(tmp_path / "b.csv", "label,text\n1,b\n")
    write(tmp_path / "c.csv", "text,toxic\na,1\n")
    text = message(tmp_path)
    assert f'{tmp_path / "c.csv"} has the columns "text", "toxic", but {tmp_path / "a.csv"}' in text


def test_a_file_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "a.parquet"):
        write(tmp_path / name, "text\na\n").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        assert "a.csv may not be read (permission denied)" in message("a.csv")
        assert "a.parquet may not be read (permission denied)" in message("a.parquet")
    finally:
        os.seteuid(user)


def test_the_fingerprint_follows_bytes_order_format_and_encoding(tmp_path):
    a = write(tmp_path / "a.csv", "text\na\n")
    same = open_source(write(tmp_path / "same.csv", "text\na\n")).fingerprint()
    assert open_source(a).fingerprint() == same
    others = [
        open_source(write(tmp_path / "b.csv", "text\nb\n")).fingerprint(),
        open_source(write(tmp_path / "a.txt", "text\na\n")).fingerprint(),
        open_source(a, "cp1251").fingerprint(),
        open_source(tmp_path / "[ab].csv").fingerprint(),
    ]
    assert len({same, *others}) == 5


def test_a_reader_may_stop_early(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "BLOCK_BYTES", 1 << 12)
    file = write(tmp_path / "a.csv.gz", gzip.compress(b"text,label\n" + b"abcdef,1\n" * 100_000))
    source = open_source(file)
    for _ in range(50):
        chunks = source.chunks()
        assert next(chunks).first_row == 1
        chunks.close()


# --------------------------------------------------------------------------------------- real data


@needs_shared
def test_russian_comments_with_quoted_line_feeds_are_read_whole():
    source = open_source(SHARED / "toxic_ru.csv")
    assert source.columns == ("comment", "toxic")
    rows = rows_of(SHARED / "toxic_ru.csv")
    assert len(rows) == 11_551
    assert sum("\n" in row["comment"] for row in rows) > 10_000
    assert {row["toxic"] for row in rows} == {"0.0", "1.0"}
    with (SHARED / "toxic_ru.csv").open(encoding="utf-8", newline="") as file:
        expected = list(csv.DictReader(file))
    assert rows == expected


@needs_shared
@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "utf-16"])
def test_russian_comments_are_read_in_other_encodings(tmp_path, encoding):
    plain = (SHARED / "toxic_ru.csv").read_bytes().decode()
    content = plain.encode(encoding, errors="ignore")
    file = write(tmp_path / "a.csv", content)
    assert f"it looks like {encoding}: add --encoding {encoding}." in message(file)
    expected = list(csv.DictReader(io.StringIO(content.decode(encoding), newline="")))
    assert rows_of(file, encoding) == expected


@needs_shared
def test_english_tweets_are_read():
    rows = rows_of(SHARED / "english" / "davidson_hate.csv")
    assert len(rows) == 24_783
    assert list(rows[0]) == [
        *("", "count", "hate_speech", "offensive_language", "neither", "class", "tweet")
    ]
    with (SHARED / "english" / "davidson_hate.csv").open(encoding="utf-8", newline="") as file:
        assert rows == list(csv.DictReader(file))


@needs_shared
def test_a_folder_of_real_files_is_one_source():
    source = open_source(SHARED / "rucola")
    assert source.columns == ("id", "sentence", "acceptable", "error_type", "detailed_source")
    counts: dict[str, int] = {}
    for chunk in source.chunks():
        counts[chunk.file.name] = counts.get(chunk.file.name, 0) + chunk.table.num_rows
    assert counts == {
        "in_domain_dev.csv": 983,
        "in_domain_train.csv": 7869,
        "out_of_domain_dev.csv": 1804,
    }
    assert "LICENSE" in source.said[0]


@needs_shared
def test_real_json_lines_are_read():
    rows = rows_of(SHARED / "alignment" / "gsm8k_test.jsonl")
    assert len(rows) == 1319
    assert set(rows[0]) == {"question", "answer"}
    assert set(rows_of(SHARED / "alignment" / "hh_rlhf_harmless_test.jsonl.gz")[0]) == {
        *("chosen", "rejected")
    }
