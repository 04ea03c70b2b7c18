"""The server: its parts put together, from start to the last answer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from igla.serve import page
from igla.serve.border import Border, HeadAsGet, Part, refused_at
from igla.serve.engine import Engine
from igla.serve.extension import Extension
from igla.serve.generation import GenerationEngine
from igla.serve.keys import Doorkeeper
from igla.serve.labels import check_labels
from igla.serve.language import detect
from igla.serve.metrics import Metrics
from igla.serve.models import Models, Served
from igla.serve.protocols import completions, kserve, openai, own, perspective, tei
from igla.serve.protocols.discovery import discovery
from igla.serve.service import Refused, Service
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
    check_labels(settings, served)
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
    app.state.pages = []  # addresses of further pages, which an extension may add
    # An extension's prefix may be longer than a protocol's; the first that fits is the one.
    parts: tuple[Part, ...] = (*extensions, *PROTOCOLS)
    for part in parts:
        app.include_router(part.router)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        """What has no route, in the shape of the protocol whose address it is like."""
        path = request.url.path
        said = {404: f"There is nothing at {path}.", 405: f"{path} does not take {request.method}."}
        message = said.get(error.status_code, str(error.detail))
        response = refused_at(path, Refused(error.status_code, message), parts)
        response.headers.update(error.headers or {})
        return response

    @app.get("/metrics", tags=["Operation"])
    async def show_metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/$discovery/rest", tags=["Perspective"])
    async def describe(request: Request) -> dict[str, Any]:
        """Perspective's methods, for Google's clients."""
        return discovery(str(request.base_url))

    app.include_router(page.router)
    app.add_middleware(Border, service=service, parts=parts)
    if tracing is not None:
        app.add_middleware(TracedApp, tracing=tracing)
    app.add_middleware(HeadAsGet)
    return app
