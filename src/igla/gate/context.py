"""The normalised context of a decision: one text, and a digest under which the same matter is found
again."""

import hashlib
import json
import re
import unicodedata
from typing import Any

_SPACE = re.compile(r"\s+")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


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
    """SHA-256 of a text in compatibility form (NFKC), in lower case, each run of spaces as one."""
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return hashlib.sha256(clean(plain).encode()).hexdigest()
