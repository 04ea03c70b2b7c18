"""Tokens become text as they come; stop strings end it wherever tokens part them."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from igla.infer.text_stream import TextStream

TEXTS = ["Привет, мир! 👋🏽 It's a café.", "stop here, and stopping there", "日本語のテキスト"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Bytes and a few pairs of them: most letters beyond ASCII are in several tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_letters_and_make_up_the_text(tokenizer: Tokenizer, text: str) -> None:
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(text).ids] + [stream.finish()]
    assert "".join(pieces) == text
    assert not any("�" in piece for piece in pieces)


@pytest.mark.parametrize("stop", [["here"], ["re, a"], ["мир", "here"], ["Z", " "], ["p", "stop"]])
def test_a_text_ends_before_its_first_stop_string(tokenizer: Tokenizer, stop: list[str]) -> None:
    text = TEXTS[1]
    stream = TextStream(tokenizer, stop)
    given = ""
    for token in tokenizer.encode(text).ids:
        given += stream.push(token)
        assert text.startswith(given)
    place = min(text.find(one) for one in stop if one in text)
    assert given + stream.finish() == text[:place]
    assert stream.stopped_by is not None and text[place:].startswith(stream.stopped_by)


def test_what_only_began_like_a_stop_string_is_given_in_the_end(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, ["here!", "there, too"])
    given = [stream.push(token) for token in tokenizer.encode(TEXTS[1]).ids]
    assert "".join(given) == TEXTS[1][: -len("there")]
    assert stream.finish() == "there" and stream.stopped_by is None


def test_special_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    assert stream.push(tokenizer.token_to_id("<end>")) + stream.finish() == ""
