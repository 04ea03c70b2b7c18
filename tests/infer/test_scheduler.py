"""Continuous batching on the simulated engine: same tokens, fair shares, and every request ends."""

from collections.abc import Callable

import numpy as np
import pytest

from igla.errors import UserError
from igla.infer.decoding import Autoregressive, Decided, Decision, Proposal, Text
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Progress, Scheduler
from igla.infer.simulated import SimulatedBackend
from igla.infer.torch_backend import TorchBackend
from igla.model.decoder import Decoder


def greedy() -> Autoregressive:
    return Autoregressive(Sampling())


def prompt(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 50, length).tolist()


def finish(scheduler: Scheduler) -> dict[tuple[int, int], list[int]]:
    """All tokens of each continuation."""
    found: dict[tuple[int, int], list[int]] = {}
    for _ in range(10_000):
        if scheduler.idle:
            return found
        for one in scheduler.step():
            found.setdefault((one.request, one.index), []).extend(t.token for t in one.tokens)
    raise AssertionError("it does not end")


def alone(tokens: list[int], count: int, blocks: int = 64) -> list[int]:
    """What one request gets that has the engine for itself."""
    scheduler = Scheduler(SimulatedBackend(blocks=blocks), budget=10_000)
    scheduler.submit(tokens, [greedy()], max_tokens=count)
    [found] = finish(scheduler).values()
    return found


CASES = [(prompt(seed, length), 5 + 3 * seed) for seed, length in enumerate((3, 40, 17, 90, 1, 33))]


@pytest.mark.parametrize("budget", [1, 7, 64, 1000])
@pytest.mark.parametrize("blocks", [8, 64])
def test_together_requests_get_the_tokens_that_each_gets_alone(budget: int, blocks: int) -> None:
    backend = SimulatedBackend(blocks=blocks)
    scheduler = Scheduler(backend, budget=budget, max_sequences=4)
    for tokens, count in CASES:
        scheduler.submit(tokens, [greedy()], max_tokens=count)
    found = finish(scheduler)
    for request, (tokens, count) in enumerate(CASES):
        assert found[request, 0] == alone(tokens, count)
        assert len(found[request, 0]) == count
    use = backend.kv_cache().use()
    assert use.sequences == use.used == 0 and use.kept + use.free == blocks


def test_on_the_torch_engine_too(decoder: Callable[..., Decoder]) -> None:
    def tokens_of(cases: list[tuple[list[int], int]], budget: int) -> list[list[int]]:
        scheduler = Scheduler(TorchBackend(decoder(), cache_tokens=512), budget=budget)
        for tokens, count in cases:
            scheduler.submit(tokens, [greedy()], max_tokens=count)
        return [*finish(scheduler).values()]

    together = sorted(tokens_of(CASES, 40))
    assert together == sorted(tokens_of([case], 1000)[0] for case in CASES)


def test_a_step_holds_no_more_rows_than_the_budget() -> None:
    backend = SimulatedBackend()
    scheduler = Scheduler(backend, budget=20)
    for tokens, count in CASES:
        scheduler.submit(tokens, [greedy()], max_tokens=count)
    finish(scheduler)
    rows = [sum(one.count for one in forward) for forward in backend.forwards]
    assert max(rows) == 20
    assert sum(rows) == backend.stats().rows


def test_a_long_prompt_stops_neither_who_decodes_nor_a_short_one_after_it() -> None:
    scheduler = Scheduler(SimulatedBackend(blocks=200), budget=16)
    first = scheduler.submit(prompt(0, 4), [greedy()], max_tokens=40)
    scheduler.step()
    long = scheduler.submit(prompt(1, 300), [greedy()], max_tokens=3)
    short = scheduler.submit(prompt(2, 10), [greedy()], max_tokens=3)
    seen: list[int] = []
    for _ in range(10):
        progress = scheduler.step()
        assert first in {one.request for one in progress}
        seen += [one.request for one in progress]
    assert seen.count(short) == 3
    assert long not in seen
    finish(scheduler)


def test_more_sequences_than_the_budget_take_turns() -> None:
    scheduler = Scheduler(SimulatedBackend(), budget=4)
    for seed in range(10):
        scheduler.submit(prompt(seed, 2), [greedy()], max_tokens=60)
    for _ in range(40):
        scheduler.step()
    counts = dict.fromkeys(range(10), 0)
    for _ in range(20):
        for one in scheduler.step():
            counts[one.request] += 1
    assert sum(counts.values()) == 80
    assert max(counts.values()) - min(counts.values()) <= 2


def test_who_came_last_gives_way_and_who_came_first_never_does() -> None:
    scheduler = Scheduler(SimulatedBackend(blocks=7), budget=64)
    for seed in range(3):
        scheduler.submit(prompt(seed, 16), [greedy()], max_tokens=60)
    ends: list[int] = []
    while not scheduler.idle:
        ends += [one.request for one in scheduler.step() if one.finished]
    assert ends == [0, 1, 2]
    assert scheduler.preemptions > 0


def test_a_cancelled_request_leaves_at_once_and_others_do_not_notice() -> None:
    backend = SimulatedBackend()
    scheduler = Scheduler(backend, max_sequences=2)
    for tokens, _ in CASES[:3]:
        scheduler.submit(tokens, [greedy()], max_tokens=20)
    scheduler.step()
    scheduler.cancel(0)
    scheduler.cancel(2)  # it waits
    assert (scheduler.running, scheduler.waiting) == (1, 0)
    found = finish(scheduler)
    assert [*found] == [(1, 0)]
    assert alone(CASES[1][0], 20)[-len(found[1, 0]) :] == found[1, 0]
    assert backend.kv_cache().use().sequences == 0


def test_several_continuations_share_a_prompt_that_is_computed_once() -> None:
    backend = SimulatedBackend()
    scheduler = Scheduler(backend, budget=30)
    tokens = prompt(0, 75)
    decodings = [Autoregressive(Sampling(temperature=1.0, seed=seed)) for seed in range(4)]
    scheduler.submit(tokens, decodings, max_tokens=6)
    found = finish(scheduler)
    assert backend.stats().rows == 74 + 4 * 6
    assert backend.kv_cache().use().copied == 3
    for seed in range(4):
        one = Scheduler(SimulatedBackend(), budget=1000)
        one.submit(tokens, [Autoregressive(Sampling(temperature=1.0, seed=seed))], max_tokens=6)
        assert finish(one)[0, 0] == found[0, seed]
    assert len({tuple(one) for one in found.values()}) > 1


@pytest.mark.parametrize("dropped", [0, 2, None])
def test_one_of_several_continuations_can_be_cancelled(dropped: int | None) -> None:
    for steps in (0, 1, 5):
        scheduler = Scheduler(SimulatedBackend(), budget=30)
        scheduler.submit(prompt(0, 75), [greedy() for _ in range(3)], max_tokens=9)
        for _ in range(steps):
            scheduler.step()
        scheduler.cancel(0, dropped)
        found = finish(scheduler)
        left = {0, 1, 2} - {dropped} if dropped is not None else set()
        assert {index for _, index in found} == left
        for index in left:
            assert alone(prompt(0, 75), 9)[-len(found[0, index]) :] == found[0, index]


def test_a_stop_token_ends_a_text_and_is_no_part_of_it() -> None:
    tokens = alone(prompt(0, 5), 20)
    stop = tokens[7]
    scheduler = Scheduler(SimulatedBackend())
    scheduler.submit(prompt(0, 5), [greedy()], max_tokens=20, stop_tokens=[stop])
    progress: list[Progress] = []
    while not scheduler.idle:
        progress += scheduler.step()
    assert [new.token for one in progress for new in one.tokens] == tokens[: tokens.index(stop)]
    assert progress[-1].finished == "stop"


class Guessing:
    """Proposes the next tokens, of which some are wrong, and keeps those that the engine agrees
    with: greedy decoding in fewer forwards."""

    def __init__(self, right: list[int], every: int):
        self.right, self.every, self.proposed = right, every, ()

    def propose(self, text: Text, room: int) -> Proposal:
        at = len(text.generated)
        guess = [
            token if (at + index) % self.every else (token + 1) % 50
            for index, token in enumerate(self.right[at : at + 4])
        ]
        self.proposed = guess[:room]
        return Proposal(self.proposed)

    def decide(self, text: Text, logits_RV: object) -> Decision:
        best = logits_RV.argmax(1).tolist()
        kept = 0
        while kept < len(self.proposed) and self.proposed[kept] == best[kept]:
            kept += 1
        return Decision([Decided(token) for token in best[: kept + 1]], kept)


@pytest.mark.parametrize("budget", [1, 3, 100])
def test_what_a_decoding_proposes_is_computed_beside_the_text_and_kept_as_it_says(
    budget: int,
) -> None:
    cases = [(tokens, alone(tokens, count), count) for tokens, count in CASES]
    backend = SimulatedBackend()
    scheduler = Scheduler(backend, budget=budget)
    for tokens, right, count in cases:
        scheduler.submit(tokens, [Guessing(right, 5)], max_tokens=count)
    found = finish(scheduler)
    assert [found[request, 0] for request in range(len(cases))] == [case[1] for case in cases]
    if budget == 100:
        assert backend.stats().forwards < max(count for *_, count in cases)


def test_what_could_never_be_computed_is_refused_at_once() -> None:
    scheduler = Scheduler(SimulatedBackend(blocks=4, max_positions=50))
    for tokens, count, reason in (
        ([], 5, "The prompt has no tokens"),
        ([1], 0, "max_tokens is 0"),
        ([1] * 40, 11, "40 tokens and 11 more are asked for; the model knows 50 positions"),
    ):
        with pytest.raises(UserError, match=reason):
            scheduler.submit(tokens, [greedy()], max_tokens=count)
    scheduler = Scheduler(SimulatedBackend(blocks=4))
    with pytest.raises(UserError, match="the cache holds 64 in all"):
        scheduler.submit([1] * 60, [greedy()], max_tokens=5)
    assert scheduler.idle
