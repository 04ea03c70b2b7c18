from pathlib import Path

import numpy as np

from igla.data import store as store_module
from igla.data.dataset import load_dataset
from igla.data.split import TRAIN
from igla.data.store import open_store
from igla.recipe import DataRecipe
from igla.text.tokenizer import TextEncoder, train_tokenizer


def rows_file(folder: Path) -> str:
    path = folder / "rows.csv"
    lines = [f'"слово {"ещё " * (index % 9)}{index}",{index % 2}' for index in range(50)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_the_store_holds_what_the_tokenizer_gives(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    dataset = load_dataset(DataRecipe(source=rows_file(tmp_path)), seed=1)
    rows = dataset.part(TRAIN)
    tokenizer = train_tokenizer("wordpiece", dataset.texts(rows), vocab_size=100, lowercase=True)
    encoder = TextEncoder(tokenizer, 8)
    store = open_store(dataset, encoder)
    expected = encoder.encode(dataset.texts(rows))
    for row, ids, lost in zip(rows, expected.ids, expected.lost, strict=True):
        assert np.array_equal(store.tokens[store.offsets[row] : store.offsets[row + 1]], ids)
        assert store.lost[row] == lost
    assert store.lost.max() > 0 and store.lengths.max() == 8

    def no_second_time(*_: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(store_module, "_tokenize", no_second_time)
    assert np.array_equal(open_store(dataset, encoder).tokens, store.tokens)


def test_a_batch_carries_labels_and_weights(tmp_path: Path) -> None:
    dataset = load_dataset(DataRecipe(source=rows_file(tmp_path)), seed=1)
    tokenizer = train_tokenizer("bpe", ["слово ещё 1 2 3"] * 9, vocab_size=60, lowercase=True)
    store = open_store(dataset, TextEncoder(tokenizer, 16))
    batch = store.batch(np.array([7, 2]))
    assert batch.targets is not None and batch.targets.tolist() == [1, 0]
    assert batch.weights is not None and batch.weights.tolist() == [1.0, 1.0]
    assert batch.cu_seqlens.diff().tolist() == store.lengths[[7, 2]].tolist()
