import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from igla.errors import UserError
from igla.text.ending import bytes_of_tokens, end_of_text
from igla.text.tokenizer import (
    BYTE_TOKENS,
    TextEncoder,
    load_tokenizer,
    measure_fit,
    save_tokenizer,
    train_tokenizer,
    vocabulary_for,
)

TEXTS = ["Мама мыла раму, а папа читал газету.", "Ёжик в тумане ищет лошадь", "раму мыла мама"] * 30


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "byte_bpe"])
def test_training_gives_the_same_tokenizer_in_every_process(kind: str) -> None:
    """The library's own result changes with the seed of its hash tables."""
    script = (
        "import hashlib, sys; from igla.text.tokenizer import train_tokenizer as train;"
        f"texts = {TEXTS!r};"
        f"print(hashlib.sha256(train({kind!r}, texts, vocab_size=90, lowercase=True)"
        ".to_str().encode()).hexdigest())"
    )
    seen = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
        for _ in range(4)
    }
    assert len(seen) == 1


def encoder_of(kind: str = "wordpiece", max_length: int = 32, size: int = 120) -> TextEncoder:
    return TextEncoder(train_tokenizer(kind, TEXTS, vocab_size=size, lowercase=True), max_length)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_tokens_give_the_text_back(kind: str) -> None:
    encoder = encoder_of(kind)
    assert encoder.vocab_size <= 120
    tokens = encoder.encode(["Мама ищет ёжика"]).ids[0]
    assert encoder.tokenizer.decode(tokens.tolist()) == "мама ищет ёжика"


def test_a_byte_level_vocabulary_reads_and_gives_back_anything() -> None:
    tokenizer = train_tokenizer("byte_bpe", TEXTS, vocab_size=300, lowercase=False)
    assert tokenizer.get_vocab_size() == 300
    text = "Мама\n\n  мыла\tраму — 山 🎈 <b>"
    ids = tokenizer.encode(text).ids
    assert ids[0] == tokenizer.token_to_id("<|endoftext|>")
    assert tokenizer.decode(ids) == text
    sizes = bytes_of_tokens(tokenizer)
    assert sizes[ids].sum() == len(text.encode())
    assert sizes[[tokenizer.token_to_id(token) for token in BYTE_TOKENS]].tolist() == [0, 0, 0]


def test_bytes_of_a_vocabulary_that_spells_spaces_and_single_bytes() -> None:
    vocabulary = {"▁да": 0, "<0x0A>": 1, "а": 2, "</s>": 3}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.add_special_tokens(["</s>"])
    assert bytes_of_tokens(tokenizer).tolist() == [5, 1, 2, 0]


def test_where_texts_end_is_what_the_folder_says(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("byte_bpe", TEXTS, vocab_size=300, lowercase=False)
    with pytest.raises(UserError, match="names no eos_token"):
        end_of_text(tmp_path, tokenizer)
    save_tokenizer(tmp_path, TextEncoder(tokenizer, 32))
    assert end_of_text(tmp_path, tokenizer) == tokenizer.token_to_id("<|endoftext|>")
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"eos_token": {"content": "<|im_end|>"}}', encoding="utf-8")
    assert end_of_text(tmp_path, tokenizer) == tokenizer.token_to_id("<|im_end|>")
    config.write_text('{"eos_token": "</s>"}', encoding="utf-8")
    with pytest.raises(UserError, match="names no eos_token of the vocabulary"):
        end_of_text(tmp_path, tokenizer)


def test_short_i_and_yo_keep_their_marks() -> None:
    """BERT's own normaliser takes й for и and ё for е."""
    assert encoder_of().tokenizer.normalizer.normalize_str("Ёжик Йод") == "ёжик йод"


def test_what_is_cut_is_counted_and_the_last_token_stays() -> None:
    encoder = encoder_of(max_length=6)
    short, long = "мама", "мама мыла раму " * 10
    encoded = encoder.encode([short, long])
    whole = len(encoder.tokenizer.encode(long).ids)
    assert encoded.lost.tolist() == [0, whole - 6]
    assert len(encoded.ids[1]) == 6
    assert encoded.ids[1][-1] == encoder.tokenizer.token_to_id("[SEP]")


def test_a_vocabulary_of_another_language_is_noticed() -> None:
    russian, english = encoder_of(size=200), train_tokenizer(
        "wordpiece", ["the cat sat on the mat while dogs were barking"] * 20,
        vocab_size=200, lowercase=True,
    )  # fmt: skip
    assert measure_fit(russian, TEXTS).suits
    assert not measure_fit(TextEncoder(english, 16), TEXTS).suits


def test_the_vocabulary_grows_with_the_text() -> None:
    assert vocabulary_for(100) == 2000
    assert vocabulary_for(80_000) == 10_000
    assert vocabulary_for(10**9) == 30522


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    encoder = encoder_of("unigram")
    save_tokenizer(tmp_path, encoder)
    again = load_tokenizer(tmp_path)
    assert isinstance(again, Tokenizer)
    assert again.to_str() == encoder.tokenizer.to_str()


def test_a_damaged_or_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
        load_tokenizer(tmp_path)
