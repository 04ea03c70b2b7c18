"""In which letters texts are written."""

import re
from collections.abc import Iterable

_RUSSIAN = re.compile(r"[а-яё]", re.IGNORECASE)


def mostly_russian(texts: Iterable[str]) -> bool:
    """Whether half of the letters of some texts or more are Russian ones; of none, they are not."""
    letters = russian = 0
    for text in texts:
        letters += sum(sign.isalpha() for sign in text)
        russian += len(_RUSSIAN.findall(text))
    return letters > 0 and russian >= letters / 2
