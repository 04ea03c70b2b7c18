from pathlib import Path

import numpy as np
import pytest

from igla.data.dataset import Dataset, load_dataset
from igla.data.evading import EvadingRows
from igla.data.store import TokenStore, open_store
from igla.recipe import DataRecipe
from igla.text.tokenizer import TextEncoder, train_tokenizer

ROWS = 60


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Dataset, TextEncoder, TokenStore]:
    path = tmp_path / "rows.csv"
    lines = [f"собака {number} лает громко,{number % 2}" for number in range(ROWS)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    dataset = load_dataset(DataRecipe(source=str(path)), seed=1)
    texts = dataset.texts(np.arange(ROWS))
    tokenizer = train_tokenizer("wordpiece", texts, vocab_size=200, lowercase=True)
    encoder = TextEncoder(tokenizer, 64)
    return dataset, encoder, open_store(dataset, encoder)


def test_the_asked_share_is_rewritten_and_keeps_its_labels(
    rows: tuple[Dataset, TextEncoder, TokenStore],
) -> None:
    dataset, encoder, store = rows
    shown = EvadingRows(dataset, encoder, store, share=0.5, seed=1)
    order = np.random.default_rng(0).permutation(ROWS)
    changed = 0
    for step in range(20):
        batch, plain = shown.batch(order, step), store.batch(order)
        assert batch.targets is not None and plain.targets is not None
        assert batch.targets.tolist() == plain.targets.tolist()
        for place, row in enumerate(order):
            tokens = batch.tokens[batch.cu_seqlens[place] : batch.cu_seqlens[place + 1]].tolist()
            own = store.sequences(np.array([row]))[0].tolist()
            changed += tokens != own
            # The number in each text is no word, and tells which row it is.
            [number] = encoder.pieces([str(row)])
            assert "".join(map(str, number)) in "".join(map(str, tokens))
    # A rewritten text of three words, each with an even chance, stays as it is one time in eight.
    assert changed / (20 * ROWS) == pytest.approx(0.5 * 7 / 8, abs=0.06)


def test_a_step_shows_the_same_each_time_and_others_other_ones(
    rows: tuple[Dataset, TextEncoder, TokenStore],
) -> None:
    shown = EvadingRows(*rows, share=0.9, seed=1)
    some = np.array([5, 3, 40])
    first, again = shown.batch(some, 7), shown.batch(some, 7)
    assert first.tokens.tolist() == again.tokens.tolist()
    assert shown.batch(some, 8).tokens.tolist() != first.tokens.tolist()
    # What else is in the batch changes nothing: micro-batches are pieces of their step.
    alone = shown.batch(some[:1], 7)
    assert first.tokens[: len(alone.tokens)].tolist() == alone.tokens.tolist()
