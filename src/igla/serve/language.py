"""The language of a text."""

import threading
from collections.abc import Callable
from functools import cache

import py3langid

# Those that Perspective knows. Among a hundred languages a comment of a word or two would be found
# to be in any of them, Russian ones in half a dozen with the same letters.
_LANGUAGES = "ar cs de en es fr hi id it ja ko nl pl pt ru sv zh".split()


def detect(text: str) -> str:
    """Its two-letter code; "und" for a text without letters."""
    if not any(letter.isalpha() for letter in text):
        return "und"
    return str(_of_ours()(text[:1000])[0])


def read_tables() -> None:
    """Begin to read, in a thread, what it is known by: half a second, most of it unpacking."""
    threading.Thread(target=_of_ours, name="languages", daemon=True).start()


def _of_ours() -> Callable[[str], tuple[str, float]]:
    with _once:
        return _read()


_once = threading.Lock()


@cache
def _read() -> Callable[[str], tuple[str, float]]:
    py3langid.set_languages(_LANGUAGES)
    return py3langid.classify
