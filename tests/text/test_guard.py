import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from igla.text.evasion import evade, look_alikes, spaces
from igla.text.guard import guard
from igla.text.tokenizer import TextEncoder, guard_tokenizer, train_tokenizer

GUARD = guard()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Дypak", "дурак"),
        ("mуdaк", "муdак"),
        ("обо%рался", "оборался"),
        ("г0вно зд3сь", "говно здзсь"),
        ("нуууууу дааа", "нуу даа"),
        ("иди о т с ю д а быстро", "иди отсюда быстро"),
        ("зе\u200bбра \u202eмир", "зебра мир"),
        ("e\u0301\u0301\u0301", "é\u0301"),  # NFKC makes é of the first
        ("д\u0337\u0337у\u0337рак", "дурак"),
        ("дy\u0337p\u0337aк", "дурак"),
        ("за\u0301мок и\u0306од е\u0308ж", "замок йод ёж"),
        ("дур\U000e0100ак", "дурак"),
        ("𝐝𝐨𝐠 ｃａｔ", "dog cat"),
    ],
)
def test_evasive_spellings_are_undone(written: str, read: str) -> None:
    assert GUARD.normalize_str(written) == read


@pytest.mark.parametrize(
    "text",
    [
        "я и ты, а он и она",
        "и я к вам, а я и не знал, а я в школе",
        "3года, привет @вася, info@почта.рф",
        "кто-то где-нибудь",
        "в 2020 году 15000р за 3d iphone, 50к и 9м",
        "hello, мир! c++ и c#, user@example.com",
        "да... нет; 100% так",
        "программа на python3",
    ],
)
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    assert GUARD.normalize_str(text) == text


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Suka blyat", "сука блят"),
        ("hochu v'yugu", "хочу вьюгу"),
        ("moy yazyk", "мой язык"),
        ("shchas pozhaluy", "щас пожалуй"),
        ("mудак s kotom", "мудак с котом"),
        ("t o l k o tak", "толко так"),
        ("iphone 15, python3", "ипхоне 15, пытхон3"),
    ],
)
def test_russian_in_latin_letters_is_read_when_asked_for(written: str, read: str) -> None:
    assert guard(latin_as_russian=True).normalize_str(written) == read
    assert GUARD.normalize_str(written) != read


@given(text=st.text(max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    GUARD.normalize_str(text)
    guard(latin_as_russian=True).normalize_str(text)


def test_it_is_saved_with_the_tokenizer_and_acts_there() -> None:
    texts = ["собака лает дурак", "кошка мяукает отсюда"] * 20
    plain = train_tokenizer("wordpiece", texts, vocab_size=200, lowercase=True)
    guarded = train_tokenizer("wordpiece", texts, vocab_size=200, lowercase=True, guarded=True)
    guard_tokenizer(plain, latin_as_russian=True)
    for tokenizer, spellings in ((plain, ["Дypak", "durak"]), (guarded, ["Дypak"])):
        reopened = TextEncoder(Tokenizer.from_str(tokenizer.to_str()), 64)
        for spelling in spellings:
            assert reopened.pieces([spelling]) == reopened.pieces(["дурак"])


def test_most_of_what_evade_does_is_undone() -> None:
    word = "сволочь"
    for kind, least in ((look_alikes, 0.6), (spaces, 0.4)):
        draws = [kind(word, np.random.default_rng(seed)) for seed in range(200)]
        undone = np.mean([GUARD.normalize_str(f"{found} ") == f"{word} " for found in draws])
        assert undone >= least
    assert evade(word, np.random.default_rng(0), 0.0) == word
