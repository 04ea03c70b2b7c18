"""Spans of requests, and what is not in them."""

import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from igla.serve.app import create_app
from igla.serve.models import open_model
from igla.serve.settings import Settings
from igla.serve.tracing import Tracing

SECRET = "тайное слово"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_request_is_a_span_with_its_waiting_and_computing(
    trained: Path, in_process: Callable[..., Any]
) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    served = open_model(trained, "default", "float32")
    settings = Settings.model_validate({"log": {"requests": False}})
    app = create_app([served], settings, tracing=Tracing(provider))
    with in_process(app) as address:
        httpx.post(
            f"{address}/predict?key=verborgen",
            json={"inputs": [[SECRET], ["дом"]]},
            headers={"traceparent": PARENT},
        )
        wrong = {"comment": {"text": SECRET}, "requestedAttributes": {SECRET: {}}}
        httpx.post(f"{address}/v1alpha1/comments:analyze", json=wrong)
        httpx.post(f"{address}/{SECRET}", json={})
    spans = {span.name: span for span in kept.get_finished_spans()}
    assert spans.keys() == {
        *("queue", "compute", "POST /predict"),
        *("POST /v1alpha1/comments:analyze", "POST unknown"),
    }
    request, queue, compute = (spans[name] for name in ("POST /predict", "queue", "compute"))
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "igla.model": "default",
        "igla.version": served.version,
        "igla.inputs": 2,
    }
    assert f"{request.context.trace_id:032x}" == PARENT.split("-")[1]
    assert request.parent is not None and f"{request.parent.span_id:016x}" == PARENT.split("-")[2]
    for one in (queue, compute):
        assert one.parent is not None and one.parent.span_id == request.context.span_id
    assert compute.attributes is not None and compute.attributes["igla.sequences"] == 2
    times = [request.start_time, queue.start_time, queue.end_time, compute.start_time]
    times += [compute.end_time, request.end_time]
    # Two clocks, of which one is set: their difference may move by a little.
    assert all(a <= b + 1_000_000 for a, b in pairwise(times))
    assert queue.end_time == compute.start_time
    assert spans["POST /v1alpha1/comments:analyze"].attributes["http.response.status_code"] == 400
    told = " ".join(span.to_json() for span in kept.get_finished_spans())
    assert SECRET not in told and SECRET.encode("unicode_escape").decode() not in told
    assert "verborgen" not in told and "тайное" not in told


class Collector(BaseHTTPRequestHandler):
    """Takes spans, and nothing else."""

    got: list[bytes] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append(
            gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body
        )
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: Any) -> None: ...


def test_spans_reach_a_collector(
    serve: Callable[..., Any], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("traces: true\n", encoding="utf-8")
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        with serve(str(trained), "--config", str(config)) as running:
            httpx.post(f"{running.address}/predict", json={"inputs": SECRET})
        collector.shutdown()
        thread.join()
    names = set()
    for body in Collector.got:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            names |= {span.name for scope in resource.scope_spans for span in scope.spans}
            [service] = [
                one.value.string_value
                for one in resource.resource.attributes
                if one.key == "service.name"
            ]
            assert service == "igla"
    assert {"POST /predict", "queue", "compute"} <= names
    assert all(SECRET.encode() not in body for body in Collector.got)
