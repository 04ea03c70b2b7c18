"""OpenAI's moderation endpoint."""

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from igla.serve.labels import categories_of
from igla.serve.scoring import Scored
from igla.serve.service import Refused, route_class, service_of, version_header

CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit"),
    *("illicit/violent", "self-harm", "self-harm/intent", "self-harm/instructions"),
    *("sexual", "sexual/minors", "violence", "violence/graphic"),
)
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def refusal(status: int, message: str) -> JSONResponse:
    """OpenAI's shape of an error."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    content = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return JSONResponse(content, status)


router = APIRouter(prefix="/v1", route_class=route_class(refusal), tags=["OpenAI"])


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ImagePart(BaseModel):
    type: Literal["image_url"]


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ModerationRequest(BaseModel):
    """A text, several, or the parts of one message. A model that is not served here (clients name
    OpenAI's own) is taken for the default one."""

    input: str | list[str] | list[Part]
    model: str | None = None


@router.post("/moderations")
async def moderate(request: Request, body: ModerationRequest) -> JSONResponse:
    """Flags and scores by category. What the model does not know stays false and 0.0."""
    service = service_of(request)
    served = service.models.find(body.model) or service.models.default
    texts = _texts(body)
    found = await service.score(request, served, texts)
    known = categories_of(service.settings, served.classes)
    flags = served.classifier.rule.labels(found.probabilities)
    content = {
        "id": f"modr-{uuid.uuid4().hex}",
        "model": f"{served.name}/{served.version}",
        "results": [_result(found, row, flags, known) for row in range(len(texts))],
    }
    return JSONResponse(content, headers=version_header(served))


def _texts(body: ModerationRequest) -> list[str]:
    if isinstance(body.input, str):
        return [body.input]
    parts = list(body.input)
    if any(isinstance(part, ImagePart) for part in parts):
        raise Refused(400, "Images cannot be scored here: send texts.")
    if any(isinstance(part, TextPart) for part in parts):  # of one message
        return ["\n".join(part.text for part in parts if isinstance(part, TextPart))]
    return [part for part in parts if isinstance(part, str)]


def _result(found: Scored, row: int, flags: Any, known: dict[str, int]) -> dict[str, Any]:
    multi_label = found.served.classifier.rule.multi_label
    categories = dict.fromkeys(CATEGORIES, False)
    scores = dict.fromkeys(CATEGORIES, 0.0)
    for name, column in known.items():
        categories[name] = bool(flags[row][column] if multi_label else flags[row] == column)
        scores[name] = float(found.probabilities[row, column])
    return {
        "flagged": any(categories.values()),
        "categories": categories,
        "category_scores": scores,
        "category_applied_input_types": {
            name: ["text"] if name in known else [] for name in categories
        },
    }
