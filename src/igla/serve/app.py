"""The server: its parts put together, from start to the last answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from igla.serve import page
from igla.serve.engine import Engine
from igla.serve.extension import Extension
from igla.serve.generation import GenerationEngine
from igla.serve.keys import Doorkeeper
from igla.serve.labels import check_labels
from igla.serve.language import detect
from igla.serve.log import log_request
from igla.serve.metrics import Metrics
from igla.serve.models import Models, Served
from igla.serve.protocols import completions, kserve, openai, own, perspective, tei
from igla.serve.protocols.discovery import discovery
from igla.serve.service import CLIENT_LEFT, Refused, Service
from igla.serve.settings import Settings
from igla.serve.suggestions import SuggestionSink
from igla.serve.tracing import TracedApp, Tracing, tracing_by_otlp

PROTOCOLS = (perspective, openai, completions, tei, kserve, own)


def create_app(
    served: Sequence[Served],
    settings: Settings,
    keys: Doorkeeper | None = None,
    suggestions: SuggestionSink | None = None,
    extensions: Sequence[Extension] = (),
    tracing: Tracing | None = None,
) -> FastAPI:
    """The application over models that are loaded; the first one is the default.

    keys         who may ask; None: everybody
    suggestions  who keeps the scores that clients suggest; None: nobody, and they are told so
    extensions   routes beside those of the protocols
    tracing      where spans go; None: where the settings say, if anywhere

    UserError where the settings name what no model knows.
    """
    metrics = Metrics()
    check_labels(settings, {name for one in served if one.scores for name in one.classes})
    if tracing is None and settings.traces:
        tracing = tracing_by_otlp()
    on_job = None if tracing is None else tracing.job
    limits = settings.limits
    engine = Engine(limits.waiting_tokens, metrics.batch, on_job)
    generation = GenerationEngine(limits.waiting_tokens, limits.cache_tokens, metrics.step)
    metrics.waiting.set_function(lambda: engine.waiting_tokens + generation.waiting_tokens)
    models = Models(served, limits.versions)
    service = Service(settings, models, engine, generation, metrics, keys, suggestions)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        detect("Готово?")  # its tables are read now, and not with the first comment
        engine.start()
        generation.start()
        for one in extensions:
            await one.start(service)
        yield
        service.draining = True
        await asyncio.gather(engine.close(), generation.close())
        for one in reversed(extensions):
            await one.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="igla", version=version("igla"), lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    # An extension's prefix may be longer than a protocol's; the first that fits is the one.
    parts: tuple[_Part, ...] = (*extensions, *PROTOCOLS)
    for part in parts:
        app.include_router(part.router)

    @app.get("/metrics", tags=["Operation"])
    async def show_metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/$discovery/rest", tags=["Perspective"])
    async def describe(request: Request) -> dict[str, Any]:
        """Perspective's methods, for Google's clients."""
        return discovery(str(request.base_url))

    app.include_router(page.router)
    app.add_middleware(_Border, service=service, parts=parts)
    if tracing is not None:
        app.add_middleware(TracedApp, tracing=tracing)
    return app


class _Part(Protocol):
    @property
    def router(self) -> APIRouter: ...

    @property
    def refusal(self) -> Callable[[int, str], Response]: ...


class _Border:
    """Refuses bodies that are too long before they are read whole; counts and logs answers."""

    def __init__(self, app: ASGIApp, service: Service, parts: Sequence[_Part]):
        self.app = app
        self.service = service
        self.parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

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
            if fault is not None:
                answer = self._refusal(scope["path"], fault.status, fault.message)
                await answer(scope, receive, send_counted)
            elif body is None:
                status = CLIENT_LEFT
            else:
                await self.app(scope, _replayed(body, receive), send_counted)
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

    def _refusal(self, path: str, status: int, message: str) -> Response:
        """An error in the shape of the part that a path is of."""
        for part in self.parts:
            if part.router.prefix and path.startswith(part.router.prefix + "/"):
                return part.refusal(status, message)
        return tei.refusal(status, message)


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
