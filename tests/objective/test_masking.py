"""Which tokens are masked, and what stands in their place."""

import pytest
import torch
from torch import Tensor

from igla.objective.masking import Masking

VOCABULARY, MASK, SPECIAL, INNER = 50, 3, 5, 20  # special tokens first, then whole words, then ends


def masking(share: float = 0.15, unit: str = "token") -> Masking:
    ids = torch.arange(VOCABULARY)
    return Masking(share, unit, MASK, ids < SPECIAL, ids >= INNER)


def text(tokens: int = 4000) -> Tensor:
    """Sequences of 20 tokens, the first and the last of each special."""
    torch.manual_seed(0)
    tokens_T = torch.randint(SPECIAL, VOCABULARY, (tokens,))
    tokens_T[::20], tokens_T[19::20] = 1, 2
    return tokens_T


@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("share", [0.05, 0.15, 0.4])
def test_the_share_is_kept_in_each_batch(share: float, unit: str) -> None:
    tokens_T = text()
    free = int((tokens_T >= SPECIAL).sum())
    for seed in range(5):
        torch.manual_seed(seed)
        chosen = masking(share, unit).choose(tokens_T)
        assert 0 <= len(chosen) - share * free <= 12
        assert (tokens_T[chosen] >= SPECIAL).all()
        assert (chosen.diff() > 0).all()


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_every_token_has_the_same_chance(unit: str) -> None:
    tokens_T = text(400)
    counts = torch.zeros(400)
    for seed in range(2000):
        torch.manual_seed(seed)
        counts[masking(0.25, unit).choose(tokens_T)] += 1
    shares = counts[tokens_T >= SPECIAL] / 2000
    # Binomial: a standard deviation of 0.0097 for each of 360; units are at most a few tokens.
    assert shares.mean() == pytest.approx(0.25, abs=0.01)
    assert (shares - 0.25).abs().max() < 0.05


def test_words_are_masked_whole() -> None:
    tokens_T = text()
    chosen = torch.zeros(len(tokens_T), dtype=torch.bool)
    chosen[masking(unit="word").choose(tokens_T)] = True
    inner = (tokens_T >= INNER) & (tokens_T.roll(1) >= SPECIAL)
    inner[0] = False
    assert (chosen[inner] == chosen.roll(1)[inner]).all()


def test_spans_are_of_the_lengths_that_they_are_drawn_with() -> None:
    torch.manual_seed(0)
    tokens_T = torch.full((20_000,), 10)
    chosen = masking(0.1, "span").choose(tokens_T)
    runs = (chosen.diff() != 1).sum() + 1
    # Geometric lengths of mean 5, cut at 10: 4.46 on average; neighbours make some longer.
    assert 4.3 < len(chosen) / runs < 5.4


def test_most_are_masked_some_replaced_some_left() -> None:
    tokens_T = torch.full((10_000,), 10)
    torch.manual_seed(0)
    chosen = masking(0.5).choose(tokens_T)
    shown = masking().hide(tokens_T, chosen)
    hidden = shown[chosen]
    assert (hidden == MASK).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (hidden == 10).float().mean() == pytest.approx(0.1 + 0.1 / 45, abs=0.02)
    assert (hidden[hidden != MASK] >= SPECIAL).all()
    untouched = torch.ones(10_000, dtype=torch.bool)
    untouched[chosen] = False
    assert (shown[untouched] == 10).all()
    assert (tokens_T == 10).all()


def test_the_same_seed_masks_the_same() -> None:
    tokens_T = text()
    torch.manual_seed(7)
    first = masking().choose(tokens_T)
    torch.manual_seed(7)
    assert first.equal(masking().choose(tokens_T))


def test_one_ordinary_token_is_always_chosen() -> None:
    assert masking(0.01).choose(torch.tensor([1, 9, 2])).tolist() == [1]
