"""What is drawn from, in closed form."""

import math

import pytest
import torch
from scipy import stats

from igla.errors import UserError
from igla.infer.sampling import Sampler, Sampling, adjusted, probabilities

# Logits of the probabilities ½, ¼, ⅛, ⅛.
LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()


def p(**settings: object) -> list[float]:
    return [round(x, 5) for x in probabilities(LOGITS, Sampling(**settings)).tolist()]


def test_of_temperature_0_all_is_on_the_likeliest() -> None:
    assert p() == [1, 0, 0, 0]
    assert Sampler(Sampling()).sample(LOGITS) == 0


def test_a_temperature_is_a_power_of_the_probabilities() -> None:
    assert p(temperature=1.0) == [0.5, 0.25, 0.125, 0.125]
    squares = [1 / 4, 1 / 16, 1 / 64, 1 / 64]
    assert p(temperature=0.5) == [round(x / sum(squares), 5) for x in squares]


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 1e-45, 5e-324])
def test_however_low_a_temperature_the_likeliest_is_drawn(temperature: float) -> None:
    assert p(temperature=temperature) == [1, 0, 0, 0]
    few = Sampling(temperature=temperature, top_p=0.9, typical_p=0.9, min_p=0.1, seed=0)
    assert Sampler(few).sample(LOGITS + 40) == 0


def test_top_k_keeps_so_many_and_what_ties_with_the_last() -> None:
    assert p(temperature=1.0, top_k=1) == [1, 0, 0, 0]
    assert p(temperature=1.0, top_k=2) == [0.66667, 0.33333, 0, 0]
    assert p(temperature=1.0, top_k=3) == p(temperature=1.0)
    assert p(temperature=1.0, top_k=9) == p(temperature=1.0)


def test_top_p_keeps_as_few_as_make_up_the_mass() -> None:
    assert p(temperature=1.0, top_p=0.0) == [1, 0, 0, 0]
    assert p(temperature=1.0, top_p=0.5) == [1, 0, 0, 0]
    assert p(temperature=1.0, top_p=0.51) == [0.66667, 0.33333, 0, 0]
    # Of two that are alike one remains, whichever.
    assert sorted(p(temperature=1.0, top_p=0.8)) == [0, 0.14286, 0.28571, 0.57143]
    assert p(temperature=1.0, top_p=1.0) == p(temperature=1.0)


def test_top_p_reaches_into_a_flat_vocabulary() -> None:
    kept = probabilities(torch.zeros(5000), Sampling(temperature=1.0, top_p=0.9)) > 0
    assert abs(int(kept.sum()) - 4500) <= 2


def test_min_p_is_a_share_of_the_likeliest() -> None:
    assert p(temperature=1.0, min_p=0.5) == [0.66667, 0.33333, 0, 0]
    assert p(temperature=1.0, min_p=0.25) == p(temperature=1.0)
    assert p(temperature=1.0, min_p=1.0) == [1, 0, 0, 0]


def test_typical_sampling_takes_first_what_surprises_as_much_as_the_whole_does() -> None:
    # The entropy is 1.75 bits: ¼ (2 bits) is nearest, then ½ (1 bit), then ⅛ (3 bits).
    assert p(temperature=1.0, typical_p=0.2) == [0, 1, 0, 0]
    assert p(temperature=1.0, typical_p=0.3) == [0.66667, 0.33333, 0, 0]
    assert p(temperature=1.0, typical_p=0.8) == [0.57143, 0.28571, 0.14286, 0]


def test_impossible_tokens_stay_so_under_every_setting() -> None:
    logits = torch.tensor([1.0, -torch.inf, 0.5, -torch.inf])
    found = probabilities(
        logits, Sampling(temperature=1.3, top_k=3, top_p=0.99, min_p=0.01, typical_p=0.99)
    )
    assert found[1] == found[3] == 0 and found.sum() == pytest.approx(1)


def test_a_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_not() -> None:
    logits = torch.tensor([3.0, -3.0, 1.0, 0.0])
    found = adjusted(logits, Sampling(repetition_penalty=1.5), [0, 1], [1, 3])
    assert found.tolist() == [2.0, -4.5, 1.0, 0.0]
    assert logits.tolist() == [3.0, -3.0, 1.0, 0.0]


def test_frequency_counts_what_was_generated_and_presence_that_it_was() -> None:
    sampling = Sampling(frequency_penalty=0.5, presence_penalty=0.25)
    assert adjusted(torch.zeros(4), sampling, [0, 0], [1, 1, 3]).tolist() == [0, -1.25, 0, -0.75]


def test_a_bias_is_added_and_can_forbid() -> None:
    biased = adjusted(LOGITS, Sampling(logit_bias={0: -math.inf, 2: 1.0}), [], [])
    assert biased[0] == -torch.inf and biased[2] == LOGITS[2] + 1
    with pytest.raises(UserError, match="logit_bias names token 9; there are 4 tokens"):
        adjusted(LOGITS, Sampling(logit_bias={9: 1.0}), [], [])


def test_draws_have_the_distribution_and_a_seed_repeats_them() -> None:
    sampling = Sampling(temperature=1.0, seed=3)
    sampler, again = Sampler(sampling), Sampler(sampling)
    drawn = [sampler.sample(LOGITS) for _ in range(4000)]
    assert drawn[:50] == [again.sample(LOGITS) for _ in range(50)]
    counts = [drawn.count(token) for token in range(4)]
    assert stats.chisquare(counts, [2000, 1000, 500, 500]).pvalue > 0.001


def test_texts_of_the_last_seed_have_seeds_too() -> None:
    last = Sampling(temperature=1.0, seed=2**63 - 1)
    assert (last.of_text(0).seed, last.of_text(1).seed) == (2**63 - 1, 0)


def test_without_a_seed_draws_differ() -> None:
    one, other = Sampler(Sampling(temperature=1.0)), Sampler(Sampling(temperature=1.0))
    flat = torch.zeros(10_000)
    assert [one.sample(flat) for _ in range(4)] != [other.sample(flat) for _ in range(4)]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; it lies between 0.0 and 1000000.0"),
        ({"temperature": float("inf")}, "temperature is inf; it lies between"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 1.1}, "top_p is 1.1; it lies between 0.0 and 1.0"),
        ({"min_p": -1}, "min_p is -1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it lies between 0.01 and 100"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty is 1e-40"),
        ({"seed": -1}, "seed is -1; it lies between 0 and"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"presence_penalty": math.inf}, "presence_penalty is inf; it is a finite number"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Sampling(**settings)
