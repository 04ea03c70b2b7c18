"""The gate's routes: decide, feedback, what waits for a person, and how it stands."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

from igla.gate.context import clean, digest, text_of_tool
from igla.gate.gate import Asked, answer_of, gate_of, refusal
from igla.gate.log import NewFeedback, Withdrawal
from igla.gate.outcomes import Outcome
from igla.serve.service import Refused, route_class, service_of, version_header


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("there are signs in it that do not show")
    return name


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Short = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Text = Annotated[str, Field(max_length=100_000)]

router = APIRouter(prefix="/v1/gate", route_class=route_class(refusal), tags=["Gate"])


class Matter(BaseModel):
    """A text, or a call of a tool with its arguments and context.

    A field that is not known is an error: a misspelt one would be missed later.
    """

    model_config = ConfigDict(extra="forbid")

    text: Text | None = None
    tool: Name | None = None
    arguments: Any = None
    context: Text = ""
    model: str | None = None
    subject: Name | None = None
    slice: Short | None = None

    def whole(self) -> str | None:
        """The one text that is decided on, if there is any."""
        if self.tool is not None:
            return text_of_tool(self.tool, self.arguments, self.context)
        return self.text

    @model_validator(mode="after")
    def _one_of_two(self) -> "Matter":
        if self.text is not None and self.tool is not None:
            raise ValueError("give text or tool, not both")
        if self.tool is None and (self.arguments is not None or self.context):
            raise ValueError("arguments and context belong to a tool")
        return self


class DecideRequest(Matter):
    version: str | None = None
    do_not_store: bool = Field(False, validation_alias=AliasChoices("do_not_store", "doNotStore"))


class FeedbackRequest(Matter):
    """decision  the id of one; without it the feedback is to the text or the tool call itself"""

    decision: Short | None = None
    outcome: Outcome
    who: Annotated[str, Field(max_length=200), AfterValidator(_printable)] = ""
    idempotency_key: Name | None = None


@router.post("/decide")
async def decide(request: Request, body: DecideRequest) -> JSONResponse:
    """Allow, review or block; the decision is in the log when it is answered, or says it is not."""
    service, gate = service_of(request), gate_of(request)
    text = body.whole()
    if text is None or not text.strip():
        raise Refused(400, "There is neither a text nor a tool to decide on.")
    served = service.model(body.model, body.version)
    if body.version is None:
        served = gate.pick(served, body.subject or text)
    asked = Asked(text, body.tool, body.subject, body.slice, keep=not body.do_not_store)
    decided = await gate.decide(request, served, asked)
    return JSONResponse(answer_of(decided), headers=version_header(served))


@router.post("/feedback")
async def feedback(
    request: Request,
    body: FeedbackRequest,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> dict[str, Any]:
    """Takes down what became of a decision; answered when it is on the disk, once."""
    service, gate = service_of(request), gate_of(request)
    service.check_ready()
    key = service.check_key(request, "feedback") or ""
    if None not in (idempotency_key, body.idempotency_key) and (
        idempotency_key != body.idempotency_key
    ):
        raise Refused(400, "The idempotency key of the header is not that of the body.")
    text = body.whole()
    if (body.decision is None) == (text is None):
        raise Refused(400, "Feedback is to a decision, or to a text or tool; name one of them.")
    if text is not None and not text.strip():
        raise Refused(400, "The text is empty.")
    stored = await gate.keep(
        NewFeedback(
            outcome=body.outcome,
            decision=body.decision,
            text=None if text is None else clean(text),
            context=None if text is None else digest(text),
            model=service.model(body.model).name,
            who=body.who,
            subject=body.subject,
            slice=body.slice,
            key=key,
            idempotency_key=idempotency_key or body.idempotency_key,
        )
    )
    return {
        "feedback": stored.id,
        "target": body.outcome.target,
        "weight": stored.weight,
        "repeated": stored.repeated,
    }


@router.delete("/feedback/{name}")
async def withdraw(request: Request, name: str) -> dict[str, Any]:
    """Takes a feedback of the same key back; nothing more is learned from it."""
    service, gate = service_of(request), gate_of(request)
    key = service.check_key(request, "feedback") or ""
    stored = await gate.keep(Withdrawal(feedback=clean(name), key=key))
    return {"withdrawn": stored.id, "repeated": stored.repeated}


@router.get("/review")
async def review(
    request: Request,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    most: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """Decisions that a person is to look at and has not, the longest waiting first."""
    gate = gate_of(request)
    service_of(request).check_key(request, "feedback")
    found = await gate.read(gate.log.waiting, after, most)
    return {
        "waiting": [
            {
                "decision": one.id,
                "seq": one.seq,
                "at": one.at.isoformat(),
                "text": one.text,
                "tool": one.tool,
                "slice": one.slice,
                "probability": one.probability,
                "model": one.model,
                "version": one.version,
            }
            for one in found
        ]
    }


@router.get("/status")
async def status(request: Request) -> dict[str, Any]:
    """How many decisions and feedbacks there are, how many wait for a person, and whether the gate
    learns."""
    gate = gate_of(request)
    service_of(request).check_key(request, "feedback")
    learns = request.app.state.swapping is not None
    return {"learns": learns, **await gate.read(gate.log.counts)}
