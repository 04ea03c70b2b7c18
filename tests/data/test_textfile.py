import zipfile
from functools import partial
from itertools import pairwise

import pytest

from igla.data import textfile
from igla.data.source import open_source
from igla.data.textfile import Utf8Stream, check_encoding, guess_encoding
from igla.errors import UserError

RUSSIAN = "комментарий,токсичность\n«Подъём!» — сказал он.,0\nДа иди ты лесом,1\nЁлка,0\n"
CYRILLIC = ("cp1251", "koi8-r", "cp866", "iso8859-5", "mac-cyrillic")
WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


def message(tmp_path, content, encoding=None):
    file = tmp_path / "a.csv"
    file.write_bytes(content)
    with pytest.raises(UserError) as raised:
        list(open_source(file, encoding).chunks())
    text = str(raised.value)
    assert text.startswith(str(file))
    assert "\n" not in text
    return text


@pytest.mark.parametrize("encoding", CYRILLIC)
def test_the_cyrillic_encodings_are_told_apart(tmp_path, encoding):
    content = RUSSIAN.encode(encoding, errors="ignore")
    assert guess_encoding(content) == encoding
    assert f"it looks like {encoding}: add --encoding {encoding}." in message(tmp_path, content)


@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r"])
def test_windows_and_koi8_russian_are_told_apart_in_any_case(encoding, case):
    assert guess_encoding(case("Привет, как у тебя дела сегодня").encode(encoding)) == encoding


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Le café était fermé à Noël, où êtes-vous allé?", "cp1252"),
        ("Die Übung ist größer, für alle Straßen.", "cp1252"),
        ("He said “hi” — it’s fine.", "cp1252"),
        ("naïve café", "cp1252"),
        ("Zażółć gęślą jaźń, proszę o świeże jabłka.", "cp1250"),
        ("Привіт, як справи? Їжак і ґанок, дуже гарно, що ти є.", "cp1251"),
        ("Καλημέρα κόσμε, πώς είσαι σήμερα;", "cp1253"),
        ("今日は天気がいいですね。テストです。", "cp932"),
    ],
)
def test_other_languages_are_guessed(text, encoding):
    assert guess_encoding(text.encode(encoding)) == encoding


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("text", [RUSSIAN, "a,b\r\n1,2\r\n", "今日は,1\n"])
def test_wide_encodings_are_told_by_mark_or_line_feeds_and_read(tmp_path, encoding, text):
    content = text.encode(encoding)
    assert guess_encoding(content) == encoding
    assert f"looks like {encoding}: add --encoding {encoding}." in message(tmp_path, content)
    (tmp_path / "b.csv").write_bytes(content)
    assert Utf8Stream(tmp_path / "b.csv", encoding).read().decode() == text


def test_the_impossible_byte_is_named_with_line_and_offset(tmp_path):
    content = b"text,label\nabc,0\n" + "Привет".encode("cp1251") + b",1\n"
    text = message(tmp_path, content)
    assert "is not UTF-8 (byte 0xCF in line 3, offset 17); it looks like cp1251" in text


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4])
def test_the_impossible_byte_is_named_across_pieces(tmp_path, monkeypatch, offset):
    monkeypatch.setattr(textfile, "PIECE_BYTES", 5)
    file = tmp_path / "a.txt"
    file.write_bytes(b"\n" * 1000 + b"x" * offset + b"\xd0\xd0 plain\n")
    with pytest.raises(UserError, match=rf"byte 0xD0 in line 1001, offset {1000 + offset}\)"):
        Utf8Stream(file, None).read()


def test_one_damaged_character_in_utf8_is_no_other_encoding(tmp_path):
    content = RUSSIAN.encode().replace("Ёлка".encode(), b"\xd0\xd0lka")
    text = message(tmp_path, content)
    assert "byte 0xD0 in line 4" in text
    assert "though most of it is; mend or delete that line." in text


def test_a_file_cut_inside_a_character_is_an_error(tmp_path):
    text = message(tmp_path, RUSSIAN.encode() + "я".encode()[:1])
    assert "is not UTF-8 (byte 0xD1 in line 5" in text


def test_a_byte_that_the_given_encoding_lacks_is_an_error(tmp_path):
    content = RUSSIAN.encode("cp1251") + b"\x98,1\n"
    text = message(tmp_path, content, "cp1251")
    assert "is not cp1251 (byte 0x98 in line 5" in text
    assert "mend or delete that line" in text


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "latin-1", "ascii", "utf-16"])
def test_utf8_is_not_read_as_something_else(tmp_path, encoding):
    text = message(tmp_path, RUSSIAN.encode(), encoding)
    assert "leave --encoding out" in text


def test_ascii_may_be_read_in_any_encoding_of_single_bytes(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\na,1\n")
    for encoding in (*CYRILLIC, "ascii", "utf-8"):
        assert open_source(tmp_path / "a.csv", encoding).columns == ("text", "label")


def test_an_unknown_encoding_is_an_error_with_the_nearest_names():
    with pytest.raises(UserError, match="no encoding 'cp12510'; known are .*cp1251"):
        check_encoding("cp12510")
    with pytest.raises(UserError, match="known are .*cp1251"):
        check_encoding("русская")
    with pytest.raises(UserError, match="no encoding 'rot13'"):
        check_encoding("rot13")
    check_encoding("Windows-1251")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"%PDF-1.7\n", "a PDF"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG picture"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\x1f\x8b\x08\0", "a gzip file by its first bytes; let its name end in .gz"),
        (b"PAR1", "a Parquet file"),
    ],
)
@pytest.mark.parametrize("encoding", [None, "cp1251", "utf-16"])
def test_a_binary_file_is_named_for_what_it_is(tmp_path, head, kind, encoding):
    assert kind in message(tmp_path, head, encoding)


def test_an_excel_workbook_named_csv_is_told_to_be_saved_as_csv(tmp_path):
    with zipfile.ZipFile(tmp_path / "book.zip", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    assert "Excel workbook" in message(tmp_path, (tmp_path / "book.zip").read_bytes())


def test_a_stray_zero_byte_is_an_error_in_any_encoding(tmp_path):
    for encoding in (None, "cp1251"):
        text = message(tmp_path, b"text,label\nabc,1\nx\0y,1\n", encoding)
        assert "has a zero byte in line 3" in text


def test_binary_content_without_a_known_signature_is_no_text(tmp_path):
    text = message(tmp_path, b"\x7fELF" + bytes(range(256)) * 100)
    assert "nor any other text" in text


def test_reading_takes_the_memory_of_a_few_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(textfile, "PIECE_BYTES", 1000)
    file = tmp_path / "a.txt"
    file.write_bytes("строка\n".encode("cp1251") * 100_000)
    with Utf8Stream(file, "cp1251") as stream:
        total = 0
        while piece := stream.read(500):
            total += len(piece)
            assert len(stream._ready) < 3000
    assert total == len("строка\n".encode()) * 100_000


def test_no_read_but_the_last_ends_between_carriage_return_and_line_feed(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"a\r\n\r\r\nbc\r\n" * 100)
    for size in range(2, 12):
        with Utf8Stream(file, None) as stream:
            pieces = list(iter(partial(stream.read, size), b""))
        assert b"".join(pieces) == file.read_bytes()
        assert not any(
            one.endswith(b"\r") and two.startswith(b"\n") for one, two in pairwise(pieces)
        )
