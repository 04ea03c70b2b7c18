"""A text file as checked UTF-8, whatever its compression and encoding; a guess at the latter."""

import bz2
import codecs
import difflib
import encodings.aliases
import io
import lzma
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import charset_normalizer
import pyarrow as pa

from igla.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstandard"}
PIECE_BYTES = 1 << 20
_TAIL_BYTES = 1024

_SIGNATURES = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file", "save it as CSV"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or save it as CSV"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (b"\x1f\x8b", "a gzip file", "let its name end in .gz"),
    (b"BZh91AY&SY", "a bzip2 file", "let its name end in .bz2"),
    (b"\xfd7zXZ\x00", "an xz file", "let its name end in .xz"),
    (b"\x28\xb5\x2f\xfd", "a zstandard file", "let its name end in .zst"),
    (b"PAR1", "a Parquet file", "let its name end in .parquet"),
    (b"SQLite format 3\x00", "an SQLite database", "export its table as CSV"),
    (b"%PDF-", "a PDF", "name a file of texts"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", "name a file of texts"),
    (b"\xff\xd8\xff", "a JPEG picture", "name a file of texts"),
    (b"GIF8", "a GIF picture", "name a file of texts"),
)

# The order decides between equals: cp1251 and mac-cyrillic share all small letters but я and ё.
_CYRILLIC = ("cp1251", "koi8-r", "cp866", "iso8859-5", "mac-cyrillic")
# What is still met beside the Cyrillic ones; the detector's other hundred look like these.
_OTHERS = [
    *("cp1250", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
]
_MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_LETTERS_BY_FREQUENCY = "оеаинтсрвлкмдпуяыіьгзбчйхжшюєїцщэфъёґў"
_PUNCTUATION = "«»„“”’–—…№\xa0"


class Utf8Stream(io.RawIOBase):
    """The decompressed bytes of a text file in UTF-8, without a byte order mark, in flat memory.

    Reading raises UserError for a damaged compressed file, for what is no text, and for bytes
    that the encoding (UTF-8 if None) does not allow; it then names the line and, where one can be
    guessed, the encoding. `tail` is the last of what was read.
    """

    def __init__(self, file: Path, encoding: str | None) -> None:
        self._file = file
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
        self._source = _open_decompressed(file)
        self._offset = 0
        self._line = 1
        self._ready = bytearray()
        self.tail = b""
        # Arrow reads ahead in a thread of its own, which may outlast the reader's consumer.
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        with self._lock, memoryview(buffer).cast("B") as view:
            while len(self._ready) < len(view) and (piece := self._next_piece()):
                self._ready += piece
            count = min(len(view), len(self._ready))
            # Arrow loses the line feed of a quoted "\r\n" that two reads have torn apart
            # (apache/arrow#51368, open in version 26).
            if count > 1 and self._ready[count - 1] == ord("\r"):
                count -= 1
            view[:count] = self._ready[:count]
            self.tail = (self.tail + bytes(view[:count][-_TAIL_BYTES:]))[-_TAIL_BYTES:]
            del self._ready[:count]
            return count

    def close(self) -> None:
        with self._lock:
            self._source.close()
            super().close()

    def _next_piece(self) -> bytes:
        """Some more text; no bytes at the end of the file only."""
        while raw := self._read():
            if piece := self._decoded(raw):
                return piece
        return self._decoded(b"")

    def _read(self) -> bytes:
        try:
            raw: bytes = self._source.read(PIECE_BYTES)
        except (OSError, EOFError, lzma.LZMAError) as error:
            kind = COMPRESSIONS.get(self._file.suffix.casefold())
            if kind is None:
                raise
            raise UserError(
                f"{self._file} is damaged or no {kind} file ({error}); fetch it again, "
                f"or take {self._file.suffix} from its name if it is not compressed."
            ) from None
        return raw

    def _decoded(self, raw: bytes) -> bytes:
        if self._offset == 0:
            _refuse_binary(self._file, raw)
        state = self._decoder.getstate()
        try:
            text = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            # It counts from the start of what the decoder held back before `raw`.
            where = len(raw) - len(error.object) + error.start
            self._decoder.setstate(state)
            line = self._line + self._decoder.decode(raw[: max(0, where)]).count("\n")
            what = f"byte 0x{error.object[error.start]:02X} in line {line}"
            found = f"{what}, offset {self._offset + where}"
            raise self._undecodable(error.object, found) from None
        except UnicodeError as error:
            raise self._undecodable(raw, str(error)) from None
        if "\0" in text:
            raise self._zero_byte(raw, text)
        if self._offset == 0:
            text = text.removeprefix("\ufeff")
            self._refuse_misread_utf8(raw, text)
        self._offset += len(raw)
        self._line += text.count("\n")
        return text.encode()

    def _undecodable(self, sample: bytes, reason: str) -> UserError:
        found = f"{self._file} is not {self._encoding or 'UTF-8'} ({reason})"
        guess = guess_encoding(sample)
        if guess is None and b"\0" in sample:
            return UserError(f"{found}, nor any other text; name a file of texts.")
        if guess is None:
            return UserError(f"{found}; give its encoding with --encoding.")
        if codecs.lookup(guess) == codecs.lookup(self._encoding or "utf-8"):
            return UserError(f"{found}, though most of it is; mend or delete that line.")
        return UserError(f"{found}; it looks like {guess}: {_remedy(guess)}.")

    def _zero_byte(self, raw: bytes, text: str) -> UserError:
        guess = _wide_encoding(raw)
        if guess is not None:
            return UserError(f"{self._file} looks like {guess}: {_remedy(guess)}.")
        line = self._line + text[: text.index("\0")].count("\n")
        return UserError(
            f"{self._file} has a zero byte in line {line}, which no text has; "
            "name a file of texts, or remove the byte (tr -d '\\000')."
        )

    def _refuse_misread_utf8(self, raw: bytes, text: str) -> None:
        """An encoding of single bytes reads UTF-8 without an error, and makes nonsense of it."""
        if self._encoding is None or not _is_mostly_utf8(raw):
            return
        if text != raw.decode("utf-8-sig", errors="ignore"):
            raise UserError(
                f"{self._file} is UTF-8 and would be misread as {self._encoding}: "
                f"{_remedy('utf-8')}."
            )


def check_encoding(name: str) -> None:
    """Raise UserError, with the nearest names, for an encoding that Python does not know."""
    try:
        " ".encode(name)
    except LookupError:
        known = {*encodings.aliases.aliases, *encodings.aliases.aliases.values()}
        near = difflib.get_close_matches(name.casefold(), sorted(known)) or ["utf-8", *_CYRILLIC]
        raise UserError(
            f"There is no encoding '{name}'; known are {', '.join(near)} and others."
        ) from None


def guess_encoding(sample: bytes) -> str | None:
    """The encoding of a text that has more than ASCII in it; None where nothing fits.

    "utf-8" stands also for UTF-8 with some damage. Of the Cyrillic encodings, which charset
    detectors confuse, that one is taken which gives the commonest letters of Russian.
    """
    wide = _wide_encoding(sample)
    if wide is not None or b"\0" in sample or sample.isascii():
        return wide
    if _is_mostly_utf8(sample):
        return "utf-8"
    lines = b"\n".join(line for line in sample.split(b"\n") if not line.isascii())[:20_000]
    scores = [_cyrillic_score(lines.decode(name, errors="replace")) for name in _CYRILLIC]
    if max(scores) > 0.6:
        return _CYRILLIC[scores.index(max(scores))]
    matches = charset_normalizer.from_bytes(lines, cp_isolation=_OTHERS)
    best = matches.best()
    if best is None:
        return None
    # Of equally good ones the library takes the first by the alphabet, which is cp1250.
    equal = (match for match in matches if match.chaos <= best.chaos)
    western = any("cp1252" in match.could_be_from_charset for match in equal)
    return "cp1252" if western else best.encoding


def _is_mostly_utf8(sample: bytes) -> bool:
    """Whether there is more than ASCII in it, and that in UTF-8 but for some damage."""
    text = sample.decode("utf-8", errors="replace")
    beyond_ascii = len(text) - len(text.encode("ascii", errors="ignore"))
    return beyond_ascii > 5 * text.count("\ufffd")


def _wide_encoding(sample: bytes) -> str | None:
    """UTF-16 or UTF-32, by the byte order mark or by how line feeds are written."""
    for name in ("utf-32", "utf-16"):
        if sample.startswith(_MARKS[name]):
            return name
    for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        line_feed = "\n".encode(name)
        width, low = len(line_feed), line_feed.index(b"\n")
        units = [
            sample[start : start + width] for start in range(0, min(len(sample), 65536), width)
        ]
        feeds = [unit for unit in units if unit[low : low + 1] == b"\n"]
        if feeds.count(line_feed) > len(feeds) / 2:
            return name
    return None


def _cyrillic_score(text: str) -> float:
    """How Russian, Ukrainian or Belarusian the characters beyond ASCII are, from -1 to 1.

    A letter counts the more the commoner it is; what is no such letter, stands beside a Latin
    one, or is a capital after a small letter, counts against.
    """
    score = count = 0.0
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if char.isascii():
            continue
        count += 1
        if char in _PUNCTUATION:
            continue
        rank = _LETTERS_BY_FREQUENCY.find(char.lower())
        beside_latin = (before + after).isascii() and (before + after).strip().isalpha()
        if rank < 0 or beside_latin or (char.isupper() and before.islower()):
            score -= 1
        else:
            score += 1 - rank / len(_LETTERS_BY_FREQUENCY)
    return score / count


def _remedy(encoding: str) -> str:
    return "leave --encoding out" if encoding == "utf-8" else f"add --encoding {encoding}"


def _refuse_binary(file: Path, head: bytes) -> None:
    for signature, kind, remedy in _SIGNATURES:
        if head.startswith(signature):
            raise UserError(f"{file} is no text but {kind} by its first bytes; {remedy}.")


def _open_decompressed(file: Path) -> Any:
    compression = file.suffix.casefold()
    if compression == ".xz":
        return lzma.open(file)
    if compression == ".bz2":
        return bz2.open(file)
    if compression in COMPRESSIONS:
        # Arrow's decompressors find a truncated file, which those of zstandard let pass.
        return pa.input_stream(str(file), compression={".gz": "gzip", ".zst": "zstd"}[compression])
    return file.open("rb")
