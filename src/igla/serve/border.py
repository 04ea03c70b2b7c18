"""What every request passes first, and every answer last."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from fastapi import APIRouter, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from igla.serve.log import log_request
from igla.serve.protocols import tei
from igla.serve.service import CLIENT_LEFT, Refused, Service, refused_by


class Part(Protocol):
    """A part of the server: its routes, and its shape of an error."""

    @property
    def router(self) -> APIRouter: ...

    @property
    def refusal(self) -> Callable[[int, str], Response]: ...


class Border:
    """Refuses bodies that are too long before they are read whole, and requests beyond what the
    server has in hand; counts and logs answers."""

    def __init__(self, app: ASGIApp, service: Service, parts: Sequence[Part]):
        self.app = app
        self.service = service
        self.parts = parts
        self.in_hand = 0  # requests that were taken and are not answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        scope["headers"] = _with_kind(scope["headers"])

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                if self.service.draining:
                    headers["connection"] = "close"  # the client need not find it cut
            await send(message)

        try:
            body, fault = await self._body(receive)
            if body is not None:
                fault = self._fullness(scope)
            if fault is not None:
                refused = refused_at(scope["path"], fault, self.parts)
                await refused(scope, receive, send_counted)
            elif body is None:
                status = CLIENT_LEFT
            else:
                self.in_hand += 1
                try:
                    await self.app(scope, _replayed(body, receive), send_counted)
                finally:
                    self.in_hand -= 1
        except asyncio.CancelledError:  # the time to drain is over
            status = 503
            raise
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "unknown")
            seconds, facts = time.perf_counter() - start, scope.get("igla.facts", {})
            self.service.metrics.answered(path, status)
            if status == 200 and "model" in facts:
                self.service.metrics.timed(seconds)
            if self.service.settings.log.requests:
                log_request(scope["method"], path, status, seconds, facts)

    def _fullness(self, scope: Scope) -> Refused | None:
        """Why a request is not even parsed. What is read alone (health, metrics) always is."""
        most = self.service.settings.limits.requests
        if scope["method"] != "POST" or self.in_hand < most:
            return None
        return Refused(429, f"{most} requests are in hand already; try again.", retry_after=1.0)

    async def _body(self, receive: Receive) -> tuple[bytes | None, Refused | None]:
        """The whole body, or None when the client has left, or why it is not read."""
        body, limits = bytearray(), self.service.settings.limits
        try:
            async with asyncio.timeout(limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None, None
                    body += message.get("body", b"")
                    if len(body) > limits.body_bytes:
                        said = f"The body is longer than {limits.body_bytes:,} bytes."
                        return None, Refused(413, said)
                    if not message.get("more_body"):
                        return bytes(body), None
        except TimeoutError:
            return None, Refused(408, f"The body did not come within {limits.seconds:g} s.")


class HeadAsGet:
    """Answers HEAD as GET; the body of the answer is left out by who sends it."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, send)


def refused_at(path: str, fault: Refused, parts: Sequence[Part]) -> Response:
    """An error in the shape of the part that a path is of."""
    fitting = (
        part for part in parts if part.router.prefix and path.startswith(part.router.prefix + "/")
    )
    return refused_by(next(fitting, tei).refusal, fault)


def _with_kind(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """A request that does not say of which kind its body is sends JSON, as other servers take it;
    but not a browser's, which might have been made to send it by a foreign page."""
    names = {name for name, _ in headers}
    if names & {b"content-type", b"origin"}:
        return headers
    return [*headers, (b"content-type", b"application/json")]


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body once, then what else comes: that the client has left."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
