"""N-grams of letters: what they are, what they are not moved by, and the folders that hold them."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from igla.data.batch import PackedBatch, pack
from igla.errors import UserError
from igla.model.config import EncoderConfig
from igla.model.encoder import SequenceClassifier
from igla.model.folder import load_classifier, save_classifier
from igla.model.ngrams import WIDTH, WordNgrams, ngrams, spell
from igla.text.spelling import continuing
from igla.text.tokenizer import TextEncoder, train_tokenizer

TEXTS = ["дебилоидный приветик", "домик, домище и ещё", "у дома был лес"]
ROWS = 4096


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    tokenizer = train_tokenizer("wordpiece", TEXTS * 9, vocab_size=60, lowercase=True)
    return TextEncoder(tokenizer, 64)


def table_of(encoder: TextEncoder, seed: int = 0) -> WordNgrams:
    """One that says something."""
    torch.manual_seed(seed)
    table = WordNgrams(encoder.vocab_size, ROWS, 16).double()
    spell(table, encoder.tokenizer)
    torch.nn.init.normal_(table.table.weight)
    return table


def batch_of(encoder: TextEncoder, *texts: str) -> PackedBatch:
    return pack(encoder.encode(texts).ids)


def row_of(letters: str) -> int:
    """The table's row of one n-gram, its word's ends written as < and >."""
    codes = torch.tensor([{"<": 1, ">": 2}.get(letter, ord(letter)) for letter in letters])
    rows, _ = ngrams(codes, torch.zeros_like(codes), ROWS)
    place = sum(len(letters) - size + 1 for size in range(2, len(letters)))
    return int(rows[place])


@torch.no_grad()
def expected(table: WordNgrams, word: str) -> torch.Tensor:
    """Σ rows / √(number of n-grams), projected; written out n-gram by n-gram."""
    spelt = f"<{word}>"
    found = [spelt[i : i + n] for n in (2, 3, 4, 5) for i in range(len(spelt) - n + 1)]
    total = sum((table.table.weight[row_of(one)] for one in found), torch.zeros(WIDTH).double())
    return table.project @ total / math.sqrt(len(found))


@torch.no_grad()
def test_each_token_gets_the_ngrams_of_the_whole_word_that_it_is_in(encoder: TextEncoder) -> None:
    table = table_of(encoder)
    for text in TEXTS:
        encoding = encoder.tokenizer.encode(text)
        assert len(encoding.tokens) > len(text.split()) + 2  # some words are in pieces
        found = table(batch_of(encoder, text))
        for place, word in enumerate(encoding.word_ids):
            if encoding.special_tokens_mask[place]:
                assert not found[place].any()
                continue
            inside = [
                span
                for span, of in zip(encoding.offsets, encoding.word_ids, strict=True)
                if of == word
            ]
            spelt = text[inside[0][0] : inside[-1][1]]
            torch.testing.assert_close(found[place], expected(table, spelt))


@torch.no_grad()
def test_a_word_says_the_same_wherever_it_stands(encoder: TextEncoder) -> None:
    table = table_of(encoder)
    alone = table(batch_of(encoder, "домище"))
    among = table(batch_of(encoder, "лес домище лес", "у", "домище"))
    torch.testing.assert_close(among[-len(alone) :], alone)
    inner = alone[1:-1]
    assert any(
        torch.allclose(among[start : start + len(inner)], inner)
        for start in range(1, len(encoder.encode(["лес домище лес"]).ids[0]) - len(inner))
    )


@torch.no_grad()
def test_a_hidden_piece_says_nothing_of_its_letters(encoder: TextEncoder) -> None:
    table, batch = table_of(encoder), batch_of(encoder, "дебилоидный")
    assert len(batch.tokens) > 4
    hidden = batch.tokens.clone()
    hidden[2] = encoder.mask_token_id
    other = hidden.clone()
    other[1] = hidden[3]  # what stands on the other side of the hidden piece
    one, two = (
        table(PackedBatch(tokens, batch.positions, batch.cu_seqlens, batch.max_seqlen))
        for tokens in (hidden, other)
    )
    assert not one[2].any()
    torch.testing.assert_close(one[3:], two[3:])
    assert not torch.allclose(one[1], two[1])


def test_the_gradient_of_a_row_counts_its_ngrams(encoder: TextEncoder) -> None:
    table, batch = table_of(encoder), batch_of(encoder, "у дома")
    assert torch.autograd.gradcheck(
        lambda weight, project: torch.func.functional_call(
            table, {"table.weight": weight, "project": project}, (batch,)
        ),
        (table.table.weight[:ROWS].detach().requires_grad_(), table.project),
        fast_mode=True,
    )


def test_before_training_they_say_nothing(encoder: TextEncoder) -> None:
    model = classifier(encoder, ROWS)
    plain = classifier(encoder, 0)
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = batch_of(encoder, *TEXTS)
    torch.testing.assert_close(model(batch), plain(batch), rtol=0, atol=0)


def classifier(encoder: TextEncoder, rows: int) -> SequenceClassifier:
    torch.manual_seed(0)
    config = EncoderConfig(*(encoder.vocab_size, 32, 2, 4, 64), max_positions=64, ngrams=rows)
    model = SequenceClassifier(config, 2).eval()
    spell(model, encoder.tokenizer)
    return model


def saved(model: SequenceClassifier, folder: Path, model_type: str = "bert") -> Path:
    folder.mkdir()
    save_classifier(
        *(folder, model, ("a", "b")),
        multi_label=False,
        pad_token_id=0,
        content={"model_type": model_type},
    )
    return folder


@torch.no_grad()
def test_a_folder_with_ngrams_is_read_back_and_hugging_face_does_not_take_it_for_bert(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    model, batch = classifier(encoder, ROWS), batch_of(encoder, *TEXTS)
    torch.nn.init.normal_(model.encoder.embeddings.ngrams.table.weight)
    folder = saved(model, tmp_path / "model")
    loaded = load_classifier(folder)
    assert not loaded.new and not loaded.unused
    torch.testing.assert_close(loaded.model.eval()(batch), model(batch), rtol=0, atol=0)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert-ngrams"
    with pytest.raises(ValueError, match="bert-ngrams"):
        AutoModelForSequenceClassification.from_pretrained(folder)
    # A second time, from what was read.
    again = tmp_path / "again"
    again.mkdir()
    save_classifier(
        *(again, loaded.model, ("a", "b")),
        multi_label=False,
        pad_token_id=0,
        content=loaded.content,
    )
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_they_are_added_to_a_base_without_them_and_no_other_number_is_taken(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    plain = saved(classifier(encoder, 0), tmp_path / "plain")
    added = load_classifier(plain, ngrams=ROWS)
    assert added.model.config.ngrams == ROWS
    assert all(".ngrams." in name for name in added.new)
    having = saved(added.model, tmp_path / "having")
    assert load_classifier(having).model.config.ngrams == ROWS
    with pytest.raises(UserError, match="4096 rows of n-grams"):
        load_classifier(having, ngrams=2 * ROWS)


def test_a_folder_whose_ngrams_are_damaged_is_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    folder = saved(classifier(encoder, ROWS), tmp_path / "model")
    whole = load_file(folder / "model.safetensors")
    without = {name: value for name, value in whole.items() if ".ngrams." not in name}
    save_file(without, folder / "model.safetensors")
    for asked in (0, ROWS):
        with pytest.raises(UserError, match="lacks 3 weights"):
            load_classifier(folder, ngrams=asked)
    config = json.loads((folder / "config.json").read_text())
    for wrong in (-3, 0, "x", None):
        (folder / "config.json").write_text(json.dumps(config | {"ngram_rows": wrong}))
        with pytest.raises(UserError, match="ngram_rows"):
            load_classifier(folder)


def test_a_block_sign_among_word_pieces_is_a_letter_as_others(encoder: TextEncoder) -> None:
    tokenizer = train_tokenizer("wordpiece", [*TEXTS, "▁▂▃"] * 9, vocab_size=70, lowercase=True)
    assert any(piece.startswith("▁") for piece in tokenizer.get_vocab())
    continues = continuing(tokenizer)
    for piece, number in tokenizer.get_vocab().items():
        assert continues[number] == piece.startswith("##")


def test_who_has_no_word_pieces_is_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bpe", TEXTS * 9, vocab_size=300, lowercase=True)
    with pytest.raises(UserError, match="word pieces"):
        spell(classifier(encoder, ROWS), tokenizer)
    spell(classifier(encoder, 0), tokenizer)  # nobody asks
    folder = saved(classifier(encoder, 0), tmp_path / "electra")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "electra", "embedding_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="not with electra"):
        load_classifier(folder, ngrams=ROWS)
