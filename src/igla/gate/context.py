"""The normalised context of a decision: one text, and a digest under which the same matter is found
again."""

import hashlib
import json
import re
import unicodedata
from typing import Any

_SPACE = re.compile(r"\s+")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# Signs that stand on a letter are of this class, and no letters, digits, spaces or ASCII are.
_MARKS = re.compile(r"([^\w\s\x00-\x7f]{30})")


def clean(text: str) -> str:
    """The text as databases can hold it: half letters (lone surrogates) and NUL become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def visible(name: str, most: int) -> str:
    """A name that came from outside, without signs that do not show, cut to a length."""
    return "".join(sign for sign in clean(name) if sign.isprintable())[:most]


def text_of_tool(tool: str, arguments: Any, context: str = "") -> str:
    """One text of a tool call: the tool, its arguments as JSON with sorted keys, the context.

    The same call is the same text, in whatever order its arguments were written.
    """
    written = json.dumps(arguments, ensure_ascii=False, sort_keys=True, separators=(", ", ": "))
    return clean("\n".join(part for part in (f"tool: {tool}", written, context.strip()) if part))


def digest(text: str) -> str:
    """SHA-256 of a text in compatibility form (NFKC), in lower case, each run of spaces as one.

    Signs on a letter are sorted, in a time that grows with the square of their number. So a row of
    them is cut after every thirtieth by a sign that joins (U+034F), as Unicode's stream-safe format
    does (UAX #15, section 13).
    """
    safe = _MARKS.sub("\\1\u034f", text)
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", safe).casefold()).strip()
    return hashlib.sha256(clean(plain).encode()).hexdigest()
