"""OpenAI's moderation and embeddings endpoints."""

import base64
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from igla.serve.labels import CATEGORIES, categories_of
from igla.serve.models import Served
from igla.serve.scoring import Scored
from igla.serve.service import Refused, Service, route_class, service_of, version_header

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


class EmbeddingsRequest(BaseModel):
    """A text or several; which model, as for moderations.

    dimensions       refused unless it is the model's own: its vectors cannot be cut
    encoding_format  base64: of the little-endian float32 numbers
    """

    input: str | list[str] | list[int] | list[list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None


@router.post("/moderations")
async def moderate(request: Request, body: ModerationRequest) -> JSONResponse:
    """Flags and scores by category. What the model does not know stays false and 0.0."""
    service = service_of(request)
    served = _named(service, body.model) or service.models.scoring()
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


@router.post("/embeddings")
async def embeddings(request: Request, body: EmbeddingsRequest) -> JSONResponse:
    """A vector of length 1 for each text."""
    service = service_of(request)
    served = _named(service, body.model) or service.models.embedding()
    asked = [body.input] if isinstance(body.input, str) else body.input
    texts = [text for text in asked if isinstance(text, str)]
    if len(texts) < len(asked):
        raise Refused(
            400, "Tokens are of OpenAI's vocabularies, which are not known here: send texts."
        )
    width = served.embedder.width
    if body.dimensions not in (None, width):
        raise Refused(400, f"The model gives {width} dimensions, not {body.dimensions}.")
    found = await service.embed(request, served, texts, normalize=True)
    vectors = found.vectors.astype("<f4")
    content = {
        "object": "list",
        "model": f"{served.name}/{served.version}",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": vector.tolist()
                if body.encoding_format == "float"
                else base64.b64encode(vector.tobytes()).decode(),
            }
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
    }
    return JSONResponse(content, headers=version_header(served))


def _named(service: Service, name: str | None) -> Served | None:
    return None if name is None else service.models.find(name)


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
