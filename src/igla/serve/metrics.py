"""What Prometheus is told."""

from collections.abc import Iterable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from igla.serve.engine import BatchDone
from igla.serve.generation import StepDone
from igla.serve.models import Served
from igla.serve.scoring import Scored

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048)
_TEXTS = (1, 2, 4, 8, 16, 32, 64)
_SCORES = tuple(step / 10 for step in range(1, 11))


class Metrics:
    """The server's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "igla_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "igla_seconds",
            "Seconds of a request (stage total), of a batch's longest wait, and of computing it.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waiting = Gauge(
            "igla_waiting_tokens", "Tokens that wait for the model.", registry=self.registry
        )
        self.batch_tokens = Histogram(
            "igla_batch_tokens", "Tokens of a batch.", buckets=_TOKENS, registry=self.registry
        )
        self.written = Counter(
            "igla_written_tokens", "Tokens that decoders have written.", registry=self.registry
        )
        self.step_texts = Histogram(
            "igla_step_texts",
            "Texts in a decoder's forward pass.",
            buckets=_TEXTS,
            registry=self.registry,
        )
        self.step_seconds = Histogram(
            "igla_step_seconds",
            "Seconds of a decoder's forward pass and its draws.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first = Histogram(
            "igla_first_token_seconds",
            "Seconds from a request to the first token of its text.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.scores = Histogram(
            "igla_score",
            "Probabilities given, by model, version and class.",
            ("model", "version", "label"),
            buckets=_SCORES,
            registry=self.registry,
        )

    def batch(self, done: BatchDone) -> None:
        """Of a batch that was computed."""
        self.batch_tokens.observe(done.tokens)
        self.seconds.labels("waiting").observe(done.waited)
        self.seconds.labels("computing").observe(done.seconds)

    def step(self, done: StepDone) -> None:
        """Of a forward pass that decoders' texts were in."""
        self.step_texts.observe(done.texts)
        self.step_seconds.observe(done.seconds)
        self.written.inc(done.tokens)
        for seconds in done.first_after:
            self.first.observe(seconds)

    def scored(self, found: Scored) -> None:
        """Of the scores that a request was given."""
        served = found.served
        for label, values in zip(served.classes, found.probabilities.T, strict=True):
            histogram = self.scores.labels(served.name, served.version, label)
            for value in values:
                histogram.observe(float(value))

    def forget(self, gone: Iterable[Served]) -> None:
        """Of versions that are no longer held: their series would be kept for ever."""
        for served in gone:
            for label in served.classes if served.scores else ():
                with suppress(KeyError):  # it has never answered
                    self.scores.remove(served.name, served.version, label)

    def answered(self, route: str, status: int) -> None:
        """Of a request that was answered, well or not."""
        self.requests.labels(route, str(status)).inc()

    def timed(self, seconds: float) -> None:
        """Of a request that a model has worked for."""
        self.seconds.labels("total").observe(seconds)
