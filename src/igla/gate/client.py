"""Clients of a gate, sync and async: `GateClient` and `AsyncGateClient`.

What fails on the way, or is refused for now, is tried again. A feedback keeps its idempotency key
over all tries, so that it counts once even if only the answer was lost. Neither torch nor numpy is
loaded.
"""

import asyncio
import random
import time
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import httpx

from igla.gate.outcomes import Outcome

# Statuses that may be others a moment later.
_PASSING = (429, 502, 503, 504)
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Decision:
    """An answer of the gate.

    decision     its id, for feedback; None where it could not be logged
    probability  of allow
    """

    decision: str | None
    action: Literal["allow", "review", "block"]
    probability: float
    model: str
    version: str


@dataclass(frozen=True)
class Given:
    """A feedback that is in the gate's log.

    repeated  whether it was there before
    """

    feedback: str
    target: int
    weight: int
    repeated: bool


class GateError(Exception):
    """The gate has refused, or could not be reached in as many tries as were allowed.

    status  of the answer; None where there was none
    """

    def __init__(self, status: int | None, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class _Call:
    method: str
    path: str
    body: dict[str, Any] | None = None


class GateClient:
    """Speaks to a gate.

    url      of the server
    key      one of its keys, for score and feedback
    retries  tries after the first one
    timeout  seconds of one try
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        retries: int = 5,
        timeout: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ):
        self._retries = retries
        self._http = httpx.Client(
            base_url=url, headers=_headers(key), timeout=timeout, transport=transport
        )

    def decide(self, text: str | None = None, **asked: Any) -> Decision:
        """What a text calls for, or `tool=`, `arguments=` and `context=` of a tool call.

        Also: model, version, subject (whose text it is), slice, do_not_store.
        """
        return _decision(self._send(_decide(text, asked)))

    def feedback(
        self,
        outcome: Outcome | str,
        *,
        decision: str | None = None,
        text: str | None = None,
        who: str = "",
        idempotency_key: str | None = None,
        **said: Any,
    ) -> Given:
        """Say what became of a decision, or of a text or tool call; on the disk on return."""
        call = _feedback(outcome, decision, text, who, idempotency_key, said)
        return Given(**self._send(call))

    def withdraw(self, feedback: str) -> None:
        """Take a feedback back."""
        self._send(_Call("DELETE", f"/v1/gate/feedback/{feedback}"))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "GateClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, call: _Call) -> Any:
        for tried in range(self._retries + 1):
            try:
                answer: httpx.Response | httpx.TransportError = self._http.request(
                    call.method, call.path, json=call.body
                )
            except httpx.TransportError as error:
                answer = error
            if not _passing(answer) or tried == self._retries:
                return _content(answer)
            time.sleep(_pause(answer, tried))
        raise AssertionError


class AsyncGateClient:
    """Speaks to a gate, as GateClient does, in an event loop."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        retries: int = 5,
        timeout: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ):
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=url, headers=_headers(key), timeout=timeout, transport=transport
        )

    async def decide(self, text: str | None = None, **asked: Any) -> Decision:
        """See GateClient.decide."""
        return _decision(await self._send(_decide(text, asked)))

    async def feedback(
        self,
        outcome: Outcome | str,
        *,
        decision: str | None = None,
        text: str | None = None,
        who: str = "",
        idempotency_key: str | None = None,
        **said: Any,
    ) -> Given:
        """See GateClient.feedback."""
        call = _feedback(outcome, decision, text, who, idempotency_key, said)
        return Given(**await self._send(call))

    async def withdraw(self, feedback: str) -> None:
        """Take a feedback back."""
        await self._send(_Call("DELETE", f"/v1/gate/feedback/{feedback}"))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncGateClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _send(self, call: _Call) -> Any:
        for tried in range(self._retries + 1):
            try:
                answer: httpx.Response | httpx.TransportError = await self._http.request(
                    call.method, call.path, json=call.body
                )
            except httpx.TransportError as error:
                answer = error
            if not _passing(answer) or tried == self._retries:
                return _content(answer)
            await asyncio.sleep(_pause(answer, tried))
        raise AssertionError


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


def _decide(text: str | None, asked: dict[str, Any]) -> _Call:
    return _Call("POST", "/v1/gate/decide", {"text": text, **asked})


def _decision(content: dict[str, Any]) -> Decision:
    return Decision(*(content[name] for name in Decision.__dataclass_fields__))


def _feedback(
    outcome: Outcome | str,
    decision: str | None,
    text: str | None,
    who: str,
    idempotency_key: str | None,
    said: dict[str, Any],
) -> _Call:
    body = {
        "outcome": Outcome(outcome).value,
        "decision": decision,
        "text": text,
        "who": who,
        "idempotency_key": idempotency_key or str(uuid.uuid4()),
    }
    return _Call("POST", "/v1/gate/feedback", {**body, **said})


def _passing(answer: httpx.Response | httpx.TransportError) -> bool:
    return isinstance(answer, httpx.TransportError) or answer.status_code in _PASSING


def _pause(answer: httpx.Response | httpx.TransportError, tried: int) -> float:
    """Seconds before the next try: as the server asks, else twice as long each time, in part by
    chance, so that clients which were cut off together do not come back together."""
    asked = None if isinstance(answer, httpx.TransportError) else answer.headers.get("retry-after")
    if asked is not None and asked.isdigit():
        return min(float(asked), _LONGEST_PAUSE)
    return min(0.1 * 2**tried, _LONGEST_PAUSE) * random.uniform(0.5, 1.5)


def _content(answer: httpx.Response | httpx.TransportError) -> Any:
    """The answer's content; GateError where there is none to use."""
    if isinstance(answer, httpx.TransportError):
        raise GateError(None, f"The gate was not reached: {answer}") from answer
    if not answer.is_success:
        try:
            said = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            said = f"The gate answers {answer.status_code}."
        raise GateError(answer.status_code, str(said))
    return answer.json()
