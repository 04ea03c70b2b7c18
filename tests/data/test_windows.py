"""Documents cut into windows of tokens."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from igla.data.corpus import load_corpus
from igla.data.split import TRAIN
from igla.data.windows import SHORTEST, cut_by_lines, cut_in_a_row, in_windows, open_windows
from igla.recipe import CorpusRecipe
from igla.text.tokenizer import TextEncoder, train_tokenizer

LINES = st.lists(st.integers(0, 40), max_size=20)


@given(lengths=LINES, room=st.integers(SHORTEST, 30))
def test_windows_keep_order_and_size(lengths: Iterable[int], room: int) -> None:
    numbers = iter(range(10_000))
    lines = [[next(numbers) for _ in range(length)] for length in lengths]
    windows = list(in_windows(lines, room))
    assert all(SHORTEST <= len(window) <= room for window in windows)
    flat = [token for window in windows for token in window]
    everything = [token for line in lines for token in line]
    assert flat == everything[: len(flat)]
    assert len(everything) - len(flat) < SHORTEST


def test_a_long_line_is_copied_once() -> None:
    copied = 0

    class Line(list[int]):
        def __getitem__(self, place: Any) -> Any:
            nonlocal copied
            found = super().__getitem__(place)
            copied += len(found)
            return Line(found)

        def __radd__(self, before: list[int]) -> "Line":
            return Line([*before, *self])

    assert len(list(in_windows([Line(range(1000))], 10))) == 100
    assert copied == 1000


def test_lines_stay_whole_where_they_fit() -> None:
    lines = [[1] * 10, [2] * 10, [3] * 10]
    assert list(in_windows(lines, 20)) == [[1] * 10 + [2] * 10, [3] * 10]


def test_the_store_holds_framed_windows_of_their_documents(tmp_path: Path) -> None:
    words = [f"слово{number} идёт за словом и не кончается здесь никогда" for number in range(60)]
    for name, lines in (("a", words[:30]), ("b", words[30:])):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    sources = {"one": str(tmp_path / "a.txt"), "two": str(tmp_path / "b.txt")}
    recipe = CorpusRecipe(sources=sources, similar="keep", validation_share=0.2)
    corpus = load_corpus(recipe, seed=1)
    tokenizer = train_tokenizer("wordpiece", words, vocab_size=300, lowercase=True)
    encoder = TextEncoder(tokenizer, 32)
    windows = open_windows(corpus, encoder, cut_by_lines(encoder))
    texts = corpus.table["text"].to_pylist()
    assert len(windows.parts) == len(texts)
    for row, text in enumerate(texts):
        ids = windows.store.tokens[slice(*windows.store.offsets[row : row + 2])]
        assert ids.tolist() == tokenizer.encode(text).ids
    assert windows.sources.tolist() == corpus.table["source"].to_pylist()
    assert windows.parts.tolist() == corpus.table["part"].to_pylist()
    assert (windows.parts == TRAIN).sum() > 30
    batch = windows.store.batch(np.array([0, 5]))
    assert batch.targets is None
    assert batch.weights is None


@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5), room=st.integers(2, 30))
def test_in_a_row_each_token_but_the_first_is_once_a_next_one(
    lengths: list[int], room: int
) -> None:
    tokenizer = train_tokenizer("byte_bpe", ["abc"], vocab_size=260, lowercase=False)
    texts, end = ["abca"[: 1 + n % 3] * n for n in lengths], 0
    windows = cut_in_a_row(TextEncoder(tokenizer, room), end).windows(texts)
    for text, found in zip(texts, windows, strict=True):
        assert all(2 <= len(window) <= room for window in found)
        assert found[0][0] == end
        nexts = [token for window in found for token in window[1:]]
        assert nexts == [*tokenizer.encode(text, add_special_tokens=False).ids, end]
        assert [one[-1] for one in found[:-1]] == [one[0] for one in found[1:]]
