import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

from igla.model.transplant import NEIGHBOURS, SHARPNESS, by_pieces, by_similarity, shared_tokens
from igla.text.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> tuple[Tokenizer, Tokenizer]:
    old = train_tokenizer("wordpiece", ["ab abc cab"] * 9, vocab_size=40, lowercase=True)
    new = train_tokenizer("wordpiece", ["abcab abc xyz"] * 9, vocab_size=60, lowercase=True)
    return new, old


def test_shared_tokens_keep_their_rows(tokenizers: tuple[Tokenizer, Tokenizer]) -> None:
    new, old = tokenizers
    rows = torch.randn(old.get_vocab_size(), 6)
    shared = shared_tokens(new, old)
    moved = by_pieces(new, old, rows, shared)
    for token in ("[PAD]", "[CLS]", "[MASK]", "abc"):
        assert torch.equal(moved[new.token_to_id(token)], rows[old.token_to_id(token)])
    assert shared[new.token_to_id("xyz")] == -1


def test_special_tokens_are_matched_by_what_they_are_for() -> None:
    new = Tokenizer(
        models.WordLevel({"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "a": 3}, unk_token="[UNK]")
    )
    old = Tokenizer(
        models.WordLevel({"<s>": 0, "<pad>": 1, "<unk>": 2, "<x>": 3}, unk_token="<unk>")
    )
    # "<s>" is number 0 of the old vocabulary.
    assert shared_tokens(new, old).tolist() == [2, 1, 0, -1]


def test_a_new_word_is_the_mean_of_its_old_pieces(tokenizers: tuple[Tokenizer, Tokenizer]) -> None:
    new, old = tokenizers
    rows = torch.randn(old.get_vocab_size(), 6)
    moved = by_pieces(new, old, rows, shared_tokens(new, old))
    ids = old.encode("abcab", add_special_tokens=False).ids
    assert len(ids) > 1
    torch.testing.assert_close(moved[new.token_to_id("abcab")], rows[ids].mean(0))


def test_a_new_word_is_made_of_the_shared_words_most_like_it() -> None:
    old, shared = torch.randn(20, 4), torch.cat([torch.arange(15), torch.tensor([-1, -1, -1])])
    guide = np.random.default_rng(0).normal(size=(18, 5)).astype(np.float32)
    guide[16] = guide[3]  # the same company as a shared word
    guide[17] = 0  # nothing is known of it
    moved = by_similarity(old, shared, guide)
    assert torch.equal(moved[:15], old[:15])
    unit = guide[:15] / np.linalg.norm(guide[:15], axis=1, keepdims=True)
    for number in (15, 16):
        likeness = unit @ guide[number] / np.linalg.norm(guide[number])
        nearest = np.argsort(-likeness)[:NEIGHBOURS]
        weights = np.exp(SHARPNESS * likeness[nearest])
        wanted = (weights / weights.sum()) @ old[nearest].numpy()
        np.testing.assert_allclose(moved[number].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_without_a_shared_word_rows_are_drawn_with_the_old_spread() -> None:
    old = torch.randn(500, 3) * torch.tensor([1.0, 2.0, 3.0]) + 5
    moved = by_similarity(old, torch.full((4000,), -1), np.ones((4000, 2), dtype=np.float32))
    torch.testing.assert_close(moved.mean(0), old.mean(0), rtol=0, atol=0.2)
    torch.testing.assert_close(moved.std(0), old.std(0), rtol=0.1, atol=0)


def test_pieces_are_matched_by_where_in_a_word_they_stand() -> None:
    new = Tokenizer(models.WordLevel({"[UNK]": 0, "ab": 1, "##ab": 2, "c": 3}, unk_token="[UNK]"))
    spaced = {"<unk>": 0, "ab": 1, "\u2581ab": 2, "\u2581c": 3}
    in_bytes = {"<unk>": 0, "ab": 1, "\u0120ab": 2, "\u0120c": 3}
    for vocabulary in (spaced, in_bytes):
        old = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        assert shared_tokens(new, old).tolist() == [0, 2, 1, 3]
