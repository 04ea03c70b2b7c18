"""Spellings by which writers evade filters, made at random: to train on, and to measure with.

Each kind rewrites one word. Look-alikes and Latin letters take the place of Russian ones; signs,
spaces and repeats come into any word.
"""

import re
from collections.abc import Callable, Sequence

from numpy.random import Generator

# What a reader takes for the letter: Latin letters first, then digits and signs.
LOOK_ALIKES = {
    "а": "a@",
    "б": "6b",
    "в": "b8",
    "г": "r",
    "е": "e3",
    "ё": "e",
    "з": "3z",
    "и": "u",
    "й": "u",
    "к": "k",
    "м": "m",
    "н": "h",
    "о": "o0",
    "п": "n",
    "р": "p",
    "с": "c$",
    "т": "t7",
    "у": "y",
    "х": "x",
    "ч": "4",
    "я": "9",
}
LATIN = dict(
    zip(
        "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
        "a b v g d e e zh z i y k l m n o p r s t u f h c ch sh sch ' y ' e yu ya".split(),
        strict=True,
    )
)
_SIGNS = ".*%_#@!-"
_WORD = re.compile(r"[^\W\d_]{3,}")


def look_alikes(word: str, draw: Generator) -> str:
    """Some letters, one at least where there is one, replaced by their look-alikes."""
    places = [place for place, letter in enumerate(word) if letter.lower() in LOOK_ALIKES]
    letters = list(word)
    for place in _some(places, draw):
        alike = LOOK_ALIKES[word[place].lower()]
        letters[place] = alike[draw.integers(len(alike))]
    return "".join(letters)


def latin(word: str, draw: Generator) -> str:
    """The whole word in Latin letters."""
    return "".join(LATIN.get(letter, letter) for letter in word.lower())


def signs(word: str, draw: Generator) -> str:
    """One or two signs inside: «обо%рался»; in half of the words for a letter: «дол..еб»."""
    place, letters = int(draw.integers(1, len(word) - 1)), list(word)
    sign = _SIGNS[draw.integers(len(_SIGNS))] * int(draw.integers(1, 3))
    letters[place] = sign if draw.random() < 0.5 else letters[place] + sign
    return "".join(letters)


def spaces(word: str, draw: Generator) -> str:
    """A space at one place, or at every one."""
    if draw.random() < 0.5:
        return " ".join(word)
    place = int(draw.integers(1, len(word)))
    return f"{word[:place]} {word[place:]}"


def repeats(word: str, draw: Generator) -> str:
    """One letter two to four times more."""
    place = int(draw.integers(len(word)))
    return word[:place] + word[place] * int(draw.integers(2, 5)) + word[place:]


KINDS: dict[str, Callable[[str, Generator], str]] = {
    "look_alikes": look_alikes,
    "latin": latin,
    "signs": signs,
    "spaces": spaces,
    "repeats": repeats,
}


def evade(text: str, draw: Generator, share: float, kinds: Sequence[str] = tuple(KINDS)) -> str:
    """The text with each word of three letters and more rewritten with a chance of `share`, by one
    of the kinds."""

    def rewritten(found: re.Match[str]) -> str:
        word: str = found.group()
        if draw.random() >= share:
            return word
        return KINDS[kinds[int(draw.integers(len(kinds)))]](word, draw)

    return _WORD.sub(rewritten, text)


def _some(places: list[int], draw: Generator) -> list[int]:
    """Each with an even chance, one at least."""
    chosen = [place for place in places if draw.random() < 0.5]
    return chosen or ([places[draw.integers(len(places))]] if places else [])
