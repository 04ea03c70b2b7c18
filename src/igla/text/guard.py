"""A normaliser that undoes the spellings by which writers evade filters.

It is made of the `tokenizers` library's own parts, so that it is saved in tokenizer.json and acts
wherever that file is read. What it does, in this order:

- NFKC: full-width, circled and mathematical letters become plain ones;
- invisible signs (zero-width, soft hyphens, bidirectional marks, variation selectors) are removed;
- combining marks are removed from Russian and plain Latin letters («д̷урак»; «й», «ё» and «é» are
  letters of their own), and of several on another letter one is kept;
- signs amid a word («обо%рался») are removed;
- a Latin letter that looks like a Russian one becomes that beside Russian letters, a digit or sign
  that does amid them («дyрак», «г0вно»);
- a letter three times and more in a row is kept twice («нууууу»);
- four and more letters apart by single spaces («д у р а к») are put together.

Words of Latin letters alone, numbers, and signs between words stay as they are; unless Latin
letters are to be read as Russian ones («suka»), which suits texts of which hardly a word is in a
language that is written in them.
"""

import re
from functools import cache

from tokenizers import Regex, normalizers

# The first Russian letter that each is most often written for.
RUSSIAN = {
    "a": "а",
    "@": "а",
    "6": "б",
    "b": "в",
    "8": "в",
    "r": "г",
    "e": "е",
    "3": "з",
    "z": "з",
    "u": "и",
    "k": "к",
    "m": "м",
    "h": "н",
    "o": "о",
    "0": "о",
    "n": "п",
    "p": "р",
    "c": "с",
    "$": "с",
    "t": "т",
    "7": "т",
    "y": "у",
    "x": "х",
    "4": "ч",
    "9": "я",
}
# What is read in Latin letters, alone or several together, of those who write Russian in them.
_READ_AS = {
    "shch": "щ",
    "sch": "щ",
    "sh": "ш",
    "ch": "ч",
    "zh": "ж",
    "kh": "х",
    "ts": "ц",
    "yu": "ю",
    "ju": "ю",
    "ya": "я",
    "ja": "я",
    "yo": "ё",
    "jo": "ё",
    "x": "кс",
    **dict(zip("abcdefghijklmnopqrstuvwz", "абцдефгхийклмнопкрстуввз", strict=True)),
}
_LETTER = "[а-яё]"
_INVISIBLE = (
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\ufe00-\ufe0f\ufeff\x{e0000}-\x{e0fff}]"
)
# A look-alike beside a look-alike is reached by going over the word again.
_ROUNDS = 3


def guard(*, latin_as_russian: bool = False) -> normalizers.Sequence:
    """The normaliser, which lowers the case as well."""
    steps = [
        normalizers.NFKC(),
        normalizers.Lowercase(),
        _without(_INVISIBLE),
        _without(r"(?<=[a-zа-яё])\p{M}+"),
        _without(r"(?<=\p{M})\p{M}"),
        _without(rf"(?<={_LETTER})[*%_#^~|]{{1,3}}(?={_LETTER})"),
    ]
    alike = [*RUSSIAN.items()]
    for _ in range(_ROUNDS):
        steps += [_replaced(letter, russian) for letter, russian in alike]
        alike.reverse()
    if latin_as_russian:
        steps += _read_as_russian()
    doubles = "|".join(f"(?<={letter}{letter}){letter}" for letter in _alphabet())
    return normalizers.Sequence([*steps, _without(doubles), _without(_apart())])


def reading(text: str) -> str | None:
    """What the guard makes of a text; None where that is the text, but for the case."""
    plain, guarded = _readers()
    read: str = guarded.normalize_str(text)
    return None if read == plain.normalize_str(text) else read


@cache
def _readers() -> tuple[normalizers.Sequence, normalizers.Sequence]:
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), guard()


def _without(pattern: str) -> normalizers.Replace:
    return normalizers.Replace(Regex(pattern), "")


def _replaced(alike: str, russian: str) -> normalizers.Replace:
    """A Latin letter beside a Russian one, on either side; a digit between a Russian letter and any
    letter, a sign between two Russian ones, since «50к», «3года» and «@вася» are what they are."""
    found = re.escape(alike)
    pattern = rf"(?<={_LETTER}){found}|{found}(?={_LETTER})"
    if alike.isdigit():
        pattern = rf"(?<={_LETTER}){found}(?=[a-zа-яё@$])|(?<=[a-z@$]){found}(?={_LETTER})"
    elif not alike.isalpha():
        pattern = rf"(?<={_LETTER}){found}(?={_LETTER})"
    return normalizers.Replace(Regex(pattern), russian)


def _read_as_russian() -> list[normalizers.Replace]:
    """A «y» is «й» behind a vowel, and «ы» elsewhere; an apostrophe amid letters softens."""
    several, one = ({n: r for n, r in _READ_AS.items() if (len(n) > 1) == long} for long in (1, 0))
    return [
        *(normalizers.Replace(latin, russian) for latin, russian in several.items()),
        normalizers.Replace(Regex("(?<=[aeiouаеёиоуыэюя])y"), "й"),
        normalizers.Replace("y", "ы"),
        *(normalizers.Replace(latin, russian) for latin, russian in one.items()),
        normalizers.Replace(Regex(rf"(?<=[бвгджзклмнпрстфхцчшщ])'(?={_LETTER})"), "ь"),
    ]


def _apart() -> str:
    """The spaces in a run of letters apart: of three, a sentence may well consist («а я и …»)."""
    least = 4
    return "|".join(
        rf"(?<=\b{' '.join([_LETTER] * before)}) (?={' '.join([_LETTER] * (least - before))}\b)"
        for before in range(1, least)
    )


def _alphabet() -> str:
    return "".join(map(chr, range(ord("а"), ord("я") + 1))) + "ё"
