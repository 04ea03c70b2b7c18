"""Continuous batching (Yu et al. 2022, Orca): sequences join and leave at every forward.

In each step every sequence that decodes gets its rows, and what is left of the budget is dealt
among the texts that are being read, in equal parts, so that a long prompt neither stops those who
decode nor those who come after it. When the pool is full, who came last gives up its blocks and is
computed anew when there is room; who came first never does, so that every request ends.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from igla.errors import UserError
from igla.infer.backend import Backend, Rows
from igla.infer.cache import BLOCK, needed
from igla.infer.decoding import Decided, Decoding, Proposal, Text

Reason = Literal["stop", "length"]


@dataclass(frozen=True)
class Progress:
    """What a step has brought one continuation of a request.

    index     which of the request's continuations
    tokens    decided now; the token that ends a text is not among them
    finished  None while it goes on; stop: by itself; length: by max_tokens
    """

    request: int
    index: int
    tokens: Sequence[Decided]
    finished: Reason | None


@dataclass(eq=False)
class _Sequence:
    """One continuation of a request.

    served  the turn in which it last had rows: whose is the lowest is the next
    """

    request: int
    index: int
    text: Text
    decoding: Decoding
    max_tokens: int
    stop_tokens: Collection[int]
    served: int = -1


@dataclass(eq=False)
class _Place:
    """A number in the cache, and who has it: one who decodes, or all continuations of a text that
    is being read. Without a number they wait."""

    sequences: list[_Sequence]
    number: int = -1
    reads: bool = True

    @property
    def first(self) -> _Sequence:
        return self.sequences[0]

    @property
    def age(self) -> tuple[int, int]:
        return self.first.request, self.first.index


@dataclass(frozen=True)
class _Plan:
    """What a place computes in the coming forward: the next tokens of its text, and then, if these
    are all, what was proposed. A text that is being read proposes nothing: None."""

    place: _Place
    tokens: list[int]
    proposal: Proposal | None

    @property
    def proposed(self) -> Sequence[int]:
        return self.proposal.tokens if self.proposal else ()

    @property
    def rows(self) -> Rows:
        scratch = len(self.proposed) if self.proposal and self.proposal.scratch else 0
        count = len(self.tokens) + len(self.proposed)
        logits = min(1, len(self.tokens)) + len(self.proposed) if self.proposal else 0
        return Rows(self.place.number, count - scratch, scratch, logits)


class Scheduler:
    """Decodes many sequences over one backend. Not for several threads.

    budget         rows in a forward; more only where one sequence needs them
    max_sequences  that are computed at a time; more only for one request
    """

    def __init__(self, backend: Backend, *, budget: int = 256, max_sequences: int = 64):
        self.backend = backend
        self.budget = budget
        self.max_sequences = max_sequences
        self.preemptions = 0
        self._cache = backend.kv_cache()
        self._waiting: deque[_Place] = deque()
        self._running: list[_Place] = []
        self._requests = 0
        self._turns = 0

    @property
    def waiting(self) -> int:
        """Continuations that have no place yet."""
        return sum(len(place.sequences) for place in self._waiting)

    @property
    def running(self) -> int:
        """Continuations that are being computed."""
        return sum(len(place.sequences) for place in self._running)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._running

    def submit(
        self,
        prompt: Sequence[int],
        decodings: Sequence[Decoding],
        *,
        max_tokens: int,
        stop_tokens: Collection[int] = (),
    ) -> int:
        """Ask for one continuation of the prompt for each decoding; returns the request's number.

        Raises UserError for what could never be computed.
        """
        self._check(prompt, max_tokens)
        request, self._requests = self._requests, self._requests + 1
        sequences = [
            _Sequence(request, index, Text([*prompt]), decoding, max_tokens, stop_tokens)
            for index, decoding in enumerate(decodings)
        ]
        self._waiting.append(_Place(sequences))
        return request

    def cancel(self, request: int, index: int | None = None) -> None:
        """Drop what is left of a request, or of one of its continuations."""
        for place in [*self._waiting, *self._running]:
            place.sequences = [
                one
                for one in place.sequences
                if one.request != request or index not in (None, one.index)
            ]
            if not place.sequences:
                self._give_up(place)

    def step(self) -> list[Progress]:
        """Compute one forward; what it brought, in the order of the requests."""
        self._admit()
        plans = self._within_pool(self._planned())
        if not plans:
            return []
        tokens, positions = _laid_out(plans, self._cache.length)
        logits = self.backend.forward(tokens, positions, [plan.rows for plan in plans])
        found, start = [], 0
        for plan in plans:
            stop = start + plan.rows.wanted
            if plan.proposal is not None:
                found.append(self._decide(plan.place, plan.proposal, logits[start:stop]))
            start = stop
        return sorted(found, key=lambda one: (one.request, one.index))

    def _check(self, prompt: Sequence[int], max_tokens: int) -> None:
        if not prompt:
            raise UserError("The prompt has no tokens: there is nothing to go on from.")
        if max_tokens < 1:
            raise UserError(f"max_tokens is {max_tokens}; it is at least 1.")
        total, limit = len(prompt) + max_tokens, self.backend.max_positions
        asked = f"The prompt has {len(prompt):,} tokens and {max_tokens:,} more are asked for; "
        if limit is not None and total > limit:
            raise UserError(f"{asked}the model knows {limit:,} positions.")
        if needed(total) > self._cache.blocks:
            raise UserError(f"{asked}the cache holds {self._cache.blocks * BLOCK:,} in all.")

    # Before the forward

    def _admit(self) -> None:
        """Give places to those who wait, in the order they came, while the pool has room for the
        texts of all who have one."""
        promised = sum(
            self._cache.blocks_for(place.number, len(self._rest(place))) for place in self._running
        )
        while self._waiting:
            place = self._waiting[0]
            promised += needed(len(place.first.text))
            crowded = self.running + len(place.sequences) > self.max_sequences
            if self._running and (crowded or promised > self._cache.available):
                return
            self._waiting.popleft()
            place.number = self._cache.open(place.first.text.tokens)
            self._running.append(place)

    def _planned(self) -> list[_Plan]:
        """Who computes what: first who decodes, those before who have waited; then who reads."""
        plans: list[_Plan] = []
        decoding = [place for place in self._running if not place.reads]
        reading = [place for place in self._running if place.reads]
        # However many decode, who reads gets on: a quarter of the budget is theirs.
        kept = min(self.budget // 4, sum(len(self._rest(place)) for place in reading))
        left = self.budget - kept
        for place in sorted(decoding, key=lambda place: (place.first.served, place.age)):
            plan = self._continued(place, left if plans else None)
            if plan is None:
                break
            plans.append(plan)
            left -= plan.rows.count
        left += kept
        reading.sort(key=lambda place: (len(self._rest(place)), place.age))
        for index, place in enumerate(reading):
            share = max(left // (len(reading) - index), 0 if plans else 1)
            rest, plan = self._rest(place), None
            if len(place.sequences) == 1 and len(rest) <= share:
                plan = self._continued(place, left if plans else None)
            if plan is not None:
                place.reads = False
            elif len(rest) == 1:
                self._part(place)
                continue
            elif share:
                # Up to the last token, from which each continuation goes its own way.
                plan = _Plan(place, rest[: min(share, len(rest) - 1)], None)
            else:
                continue
            plans.append(plan)
            left -= plan.rows.count
        return plans

    def _continued(self, place: _Place, left: int | None) -> _Plan | None:
        """The rest of a text and what its decoding proposes; None if that is more than is left.

        A proposal is not cut to what is left: what a text becomes does not hang on who else is
        computed.
        """
        one, rest = place.first, self._rest(place)
        if left is not None and len(rest) > left:
            return None
        room = one.max_tokens - len(one.text.generated) - 1
        plan = _Plan(place, rest, one.decoding.propose(one.text, room))
        return plan if left is None or plan.rows.count <= left else None

    def _within_pool(self, plans: list[_Plan]) -> list[_Plan]:
        """The plans that the pool has room for, when those who came last have given up theirs."""

        def asked(plan: _Plan) -> int:
            return self._cache.blocks_for(plan.place.number, plan.rows.committed)

        while sum(map(asked, plans)) > self._cache.available:
            last = max(self._running, key=lambda place: place.age)
            self._give_up(last)
            self._waiting.appendleft(_Place(last.sequences))
            self.preemptions += 1
            plans = [plan for plan in plans if plan.place is not last]
        return plans

    def _rest(self, place: _Place) -> list[int]:
        """The tokens of a place's text that are not in the cache."""
        return place.first.text.since(self._cache.length(place.number))

    # After it

    def _part(self, place: _Place) -> None:
        """Let each continuation of a text that has been read go its own way."""
        place.reads = False
        first, *others = place.sequences
        place.sequences = [first]
        for other in others:
            number = self._cache.fork(place.number)
            self._running.append(_Place([other], number, reads=False))

    def _decide(self, place: _Place, proposal: Proposal, logits_RV: Tensor) -> Progress:
        one = place.first
        one.served = self._turns = self._turns + 1
        decision = one.decoding.decide(one.text, logits_RV)
        if not proposal.scratch:
            self._cache.truncate(place.number, len(one.text) + decision.kept)
        tokens = [*decision.tokens]
        finished: Reason | None = "stop" if decision.ended else None
        left = one.max_tokens - len(one.text.generated)
        ends = [at for at, decided in enumerate(tokens) if decided.token in one.stop_tokens]
        if ends and ends[0] <= left:
            tokens, finished = tokens[: ends[0]], "stop"
        elif len(tokens) >= left:
            tokens, finished = tokens[:left], finished or "length"
        one.text.generated.extend(decided.token for decided in tokens)
        if finished:
            self._give_up(place)
        return Progress(one.request, one.index, tokens, finished)

    def _give_up(self, place: _Place) -> None:
        if place.number < 0:
            self._waiting.remove(place)
        else:
            self._cache.close(place.number)
            self._running.remove(place)


def _laid_out(plans: Sequence[_Plan], length: Callable[[int], int]) -> tuple[np.ndarray, ...]:
    """Tokens and positions [T] of the forward."""
    tokens: list[int] = []
    positions: list[int] = []
    for plan in plans:
        start = length(plan.place.number)
        middle = start + len(plan.tokens)
        follow = range(middle, middle + len(plan.proposed))
        given = plan.proposal.positions if plan.proposal else None
        tokens += [*plan.tokens, *plan.proposed]
        positions += [*range(start, middle), *(follow if given is None else given)]
    return np.array(tokens, dtype=np.int64), np.array(positions, dtype=np.int64)
