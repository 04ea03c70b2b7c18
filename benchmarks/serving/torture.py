"""Texts that break programs, made here: one of each kind of trouble, and mixtures by a seed."""

import random
from collections.abc import Iterator

# Kinds of trouble, by what they are.
KINDS: dict[str, str] = {
    "nothing": "",
    "spaces of every width": "\u0020\u00a0\u1680\u2000\u2003\u2009\u200a\u202f\u205f\u3000",
    "ends of lines": "\n\r\n\r\u0085\u2028\u2029\v\f",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "a zero byte": "до\x00м",
    "nothing to see": "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e",
    "words cut by nothing": "д\u200bу\u200cр\u200dа\u2060к",
    "marks without a letter": "\u0301\u0308\u0327\u20dd\u0489",
    "a tower of marks": "e" + "\u0301\u0316\u0334" * 400,
    "letters in pieces": "й ё и\u0306 е\u0308 e\u0301 \u1100\u1161\u11a8",
    "what grows when normalised": "\ufdfa\ufb03\u33c2\u3300\u2474" * 50,
    "look-alikes": "дурaк дypaк 𝐝𝐮𝐫𝐚𝐤 ⓓⓤⓡⓐⓚ ｄｕｒａｋ",
    "right to left": "\u202eкарруд\u202c \u0634\u062a\u064a\u0645\u0629 \u05e7\u05dc\u05dc\u05d4",
    "directions that are never closed": "\u202a\u202b\u202d\u202e\u2066\u2067\u2068" * 20,
    "families": "👨‍👩‍👧‍👦👩🏿‍❤️‍💋‍👨🏻🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "half a flag": "\U0001f1f7\U0001f1fa\U0001f1f7",
    "tags alone": "\U000e0001\U000e0061\U000e007f",
    "selectors": "a\ufe0f\ufe0e\U000e0100",
    "private": "\ue000\uf8ff\U000f0000\U0010fffd",
    "no characters": "\ufdd0\ufffe\uffff\U0001ffff\U0010ffff",
    "replaced": "\ufffd" * 20,
    "case that changes length": "İıßẞŉǰΐﬁ",
    "digits of the world": "٣४५๓６𝟟",
    "scripts in a word": "дуraק漢字ไทย",
    "one long word": "а" * 5000,
    "one long word of marks": "a\u0300" * 2000,
    "many short words": "а " * 3000,
    "dots": "." * 5000,
    "brackets": "[" * 2000 + "]" * 2000,
    "special tokens": "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <mask> ##ing",
    "templates": "{{7*7}} {text!r} %s %n ${PATH} <script>alert(1)</script>",
    "escapes": "\\u0000 \\x00 \\ \" ' `",
    "music": "𝄞𝅘𝅥𝅮",
}
_PLANES = ((0x0, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0xE0000, 0xE0FFF))


def torture(count: int, seed: int = 0) -> Iterator[str]:
    """So many texts: each kind once, then mixtures of kinds and of characters from all planes."""
    chance = random.Random(seed)
    kinds = [*KINDS.values()]
    yield from kinds[:count]
    for _ in range(count - len(kinds)):
        pieces = [piece(chance, kinds) for _ in range(chance.randint(1, 6))]
        yield "".join(pieces)


def piece(chance: random.Random, kinds: list[str]) -> str:
    """A stretch of a kind, or characters of one plane."""
    if chance.random() < 0.5:
        text = chance.choice(kinds)
        begin = chance.randint(0, len(text))
        return text[begin : begin + chance.randint(1, 80)]
    low, high = chance.choice(_PLANES)
    return "".join(chr(chance.randint(low, high)) for _ in range(chance.randint(1, 30)))
