import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igla.text.evasion import KINDS, LATIN, LOOK_ALIKES, evade


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(text=st.text(), seed=st.integers(0, 1000))
def test_nothing_but_words_is_touched(text: str, seed: int) -> None:
    assert evade(text, draw(seed), share=0) == text
    rewritten = evade(text, draw(seed), share=1)
    apart = re.split(r"[^\W\d_]{3,}", text)
    position = 0
    for piece in apart:  # what stands between the words is all still there, in order
        position = rewritten.index(piece, position) + len(piece)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 200))
def test_every_word_is_rewritten_by_its_kind(kind: str, seed: int) -> None:
    words = ["обобрался", "собака", "Дурак", "иди"]
    for word in words:
        found = evade(word, draw(seed), share=1, kinds=[kind])
        assert found != word
        if kind == "look_alikes":
            assert len(found) == len(word)
            for letter, shown in zip(word, found, strict=True):
                assert shown == letter or shown in LOOK_ALIKES[letter.lower()]
        if kind == "latin":
            assert found == "".join(LATIN[letter] for letter in word.lower())
        if kind == "signs":
            assert found[0] == word[0] and found[-1] == word[-1]
            assert 1 <= sum(not letter.isalpha() for letter in found) <= 2
        if kind == "spaces":
            assert found.replace(" ", "") == word
        if kind == "repeats":
            assert re.sub(r"(.)\1*", r"\1", found) == re.sub(r"(.)\1*", r"\1", word)


def test_the_share_is_that_of_the_words() -> None:
    text = " ".join(["слово"] * 10_000)
    same = evade(text, draw(), share=0.3, kinds=["latin"]).split().count("слово")
    assert abs(same - 7000) < 150


def test_the_same_seed_gives_the_same_text() -> None:
    text = "Вы обобрались, дурак? Иди отсюда!"
    assert evade(text, draw(5), 0.5) == evade(text, draw(5), 0.5) != evade(text, draw(6), 0.5)
