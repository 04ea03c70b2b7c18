"""Traces for OpenTelemetry, with the extra igla[otel].

A request is a span, `queue` and `compute` are spans in it, and none holds a text, a key or an
address. Where they go is told by the variables of OpenTelemetry's own standard, as
OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER.
"""

import os
import time
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from igla.errors import UserError
from igla.serve.engine import JobDone

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Tracing:
    """Makes the spans of a server."""

    def __init__(self, provider: "TracerProvider"):
        self._provider = provider
        self.tracer = provider.get_tracer("igla.serve")

    def job(self, done: JobDone) -> None:
        """The spans of work that is done, in the request that it was done for."""
        since = time.time() - time.perf_counter()  # from one clock to the other
        began, ended = int((since + done.began) * 1e9), int((since + done.ended) * 1e9)
        facts = {"igla.sequences": done.sequences, "igla.tokens": done.tokens}
        queue = self.tracer.start_span("queue", start_time=int((since + done.came) * 1e9))
        queue.end(began)
        self.tracer.start_span("compute", start_time=began, attributes=facts).end(ended)

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()


class TracedApp:
    """An application whose requests are spans; one that comes with a traceparent is part of that
    trace."""

    def __init__(self, app: ASGIApp, tracing: Tracing):
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.app = app
        self.tracing = tracing
        self.propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.trace import SpanKind

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        carrier = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        with self.tracing.tracer.start_as_current_span(
            scope["method"], self.propagator.extract(carrier), kind=SpanKind.SERVER,
            record_exception=False,  # whose words may be a text's
        ) as span:  # fmt: skip

            async def send_told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            try:
                await self.app(scope, receive, send_told)
            finally:
                route = getattr(scope.get("route"), "path", "unknown")
                facts = scope.get("igla.facts", {})
                span.update_name(f"{scope['method']} {route}")
                span.set_attributes(
                    {"http.request.method": scope["method"], "http.route": route}
                    | {f"igla.{name}": facts[name] for name in _TOLD if name in facts}
                )


_TOLD = ("model", "version", "inputs")


def tracing_by_otlp() -> Tracing:
    """Spans that go to a collector over HTTP, in the background; UserError without the extra."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise UserError("traces: OpenTelemetry is not installed: pip install igla[otel]") from None
    os.environ.setdefault("OTEL_SERVICE_NAME", "igla")
    provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
