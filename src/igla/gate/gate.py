"""The gate as a part of a server: it decides, and has decisions and feedback kept."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from igla.gate.context import clean, digest
from igla.gate.decide import Cuts, blocked_column, cuts
from igla.gate.log import GateLog, NewDecision, NewFeedback, NotStored, Stored, Withdrawal
from igla.gate.log.writer import Commit, NotLogged, Writer
from igla.gate.metrics import GateMetrics
from igla.gate.settings import GateServerSettings
from igla.gate.suggested import feedback_of
from igla.serve.decisions import Verdict
from igla.serve.engine import Closing, Full, TooLong
from igla.serve.models import Served
from igla.serve.scoring import Scored
from igla.serve.service import Refused, Service, key_noted
from igla.serve.suggestions import NotKept, Suggestion

T = TypeVar("T")

# As nginx' and Stripe's: which refusals of the log are whose fault.
_STATUS = {"unknown": 404, "conflict": 409, "capped": 429, "slices": 409}


@dataclass(frozen=True)
class Decided:
    """A decision that was made.

    probability  of allow
    logged       its id in the log; None where it could not be written
    """

    served: Served
    action: Verdict
    probability: float
    cuts: Cuts
    logged: str | None


@dataclass(frozen=True)
class Asked:
    """What is to be decided.

    keep  whether its text may be written down
    """

    text: str
    tool: str | None = None
    subject: str | None = None
    slice: str | None = None
    keep: bool = True


class Gate:
    """Decides by the server's models, and writes to a log; an Extension of the server.

    log, writer  there are none before `write_to`, and nothing starts without
    """

    log: GateLog
    writer: Writer

    def __init__(self, settings: GateServerSettings, router: APIRouter):
        self.settings = settings
        self.router = router
        self._service: Service | None = None
        self._metrics: GateMetrics | None = None
        self._failing = False
        # Which version answers somebody who has named none.
        self.pick: Callable[[Served, str], Served] = lambda served, who: served

    def write_to(self, log: GateLog) -> None:
        """The log that is read and written from now on, and closed at the end."""
        self.log = log
        self.writer = Writer(log, self._committed)

    def refusal(self, status: int, message: str) -> Response:
        return refusal(status, message)

    async def start(self, service: Service) -> None:
        self._service = service
        self._metrics = GateMetrics(service.metrics.registry)
        self.writer.start()

    async def close(self) -> None:
        await self.writer.close()
        self.log.close()

    @property
    def metrics(self) -> GateMetrics:
        assert self._metrics is not None
        return self._metrics

    @property
    def service(self) -> Service:
        assert self._service is not None
        return self._service

    async def decide(self, request: Request, served: Served, asked: Asked) -> Decided:
        """Score a text and say what it calls for, with the log's word that it was written down.

        A log that cannot be written keeps nobody's answer: it then has no id.
        """
        column = blocked_column(self.settings, served)
        found = await self.service.score(
            request, served, [asked.text], grave=column, keep=asked.keep
        )
        probability = _allowed(found, column)
        limits = cuts(self.settings, served, asked.tool)
        action = limits.action(probability)
        self.metrics.decisions.labels(action).inc()
        text = clean(asked.text) if asked.keep else None
        new = NewDecision(
            model=served.name,
            version=served.version,
            action=action,
            probability=probability,
            text=text,
            context=None if text is None else digest(text),
            tool=asked.tool,
            subject=asked.subject,
            slice=asked.slice,
            key=key_noted(request),
        )
        try:
            logged = (await self.writer.write(new, self.settings.gate.log_seconds)).id
        except NotStored as refused:
            raise Refused(_STATUS[refused.kind], str(refused)) from None
        except NotLogged:
            self.metrics.not_logged.labels("decision").inc()
            logged = None
        return Decided(served, action, probability, limits, logged)

    async def keep(self, entry: NewFeedback | Withdrawal) -> Stored:
        """Have feedback, or its withdrawal, written down; Refused when it is not."""
        try:
            stored = await self.writer.write(entry, self.settings.limits.seconds)
        except NotStored as refused:
            raise Refused(_STATUS[refused.kind], str(refused), refused.wait) from None
        except NotLogged as failed:
            self.metrics.not_logged.labels("feedback").inc()
            raise Refused(503, str(failed), retry_after=1.0) from None
        if isinstance(entry, NewFeedback) and not stored.repeated:
            self.metrics.feedback.labels(entry.outcome, entry.source).inc()
        return stored

    async def record(self, suggestion: Suggestion) -> None:
        """Keep what a client of Perspective's suggests; see `suggested`."""
        served = self.service.model(suggestion.model, suggestion.version)
        column = blocked_column(self.settings, served)
        try:
            found = await self.service.scored(served, [suggestion.text], column)
        except (Full, TooLong, Closing) as error:
            raise NotKept(str(error) or "The server is shutting down.") from None
        action = cuts(self.settings, served, None).action(_allowed(found, column))
        await self.keep(feedback_of(suggestion, served, column, action))

    async def read(self, reading: Callable[..., T], *words: object) -> T:
        """What a method of the log reads; Refused when it cannot."""
        try:
            return await asyncio.to_thread(reading, *words)
        except SQLAlchemyError:
            logging.getLogger("uvicorn.error").exception("The gate's log cannot be read.")
            raise Refused(503, "The log cannot be read.", retry_after=1.0) from None

    def _committed(self, done: Commit) -> None:
        """Tells the operator once when the log fails, and once when it is well again."""
        self.metrics.commit(done)
        if (done.failed is not None) != self._failing:
            self._failing = done.failed is not None
            said = f"cannot be written: {done.failed}" if done.failed else "is written again"
            logging.getLogger("uvicorn.error").error("The gate's log %s", said)


def _allowed(found: Scored, column: int) -> float:
    """Probability of allow of the one text that was scored."""
    return 1.0 - float(found.probabilities[0, column])


def refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


def gate_of(request: Request) -> Gate:
    """The gate that a request is for."""
    gate: Gate = request.app.state.gate
    return gate


def answer_of(decided: Decided) -> dict[str, Any]:
    return {
        "decision": decided.logged,
        "action": decided.action,
        "probability": decided.probability,
        "model": decided.served.name,
        "version": decided.served.version,
        "thresholds": {"allow": decided.cuts.allow, "block": decided.cuts.block},
        "logged": decided.logged is not None,
    }
