"""What no other service's protocol has: which words drive a score, and what is served."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from igla.serve.labels import attributes_of
from igla.serve.service import route_class, service_of, version_header


def refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


router = APIRouter(prefix="/igla/v1", route_class=route_class(refusal), tags=["igla"])


class ExplainRequest(BaseModel):
    text: Annotated[str, Field(max_length=20_000)]
    model: str | None = None


@router.post("/explain")
async def explain(request: Request, body: ExplainRequest) -> JSONResponse:
    """Scores of a text, and how far each falls when a word is hidden, word by word."""
    found = await service_of(request).explain(request, body.text, body.model)
    served = found.served
    return JSONResponse(
        {
            "model": served.name,
            "version": served.version,
            "classes": list(served.classes),
            "probabilities": found.probabilities.tolist(),
            "words": [
                {"begin": begin, "end": end, "effects": effects.tolist()}
                for (begin, end), effects in zip(found.spans, found.effects, strict=True)
            ],
        },
        headers=version_header(served),
    )


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """What is served."""
    service = service_of(request)
    return {
        "default": service.models.default.name,
        "models": [
            {
                "name": one.name,
                "version": one.version,
                "classes": list(one.classes),
                "grave": next(iter(attributes_of(service.settings, one.classes).values())),
                "threshold": one.classifier.rule.threshold,
            }
            for one in service.models.all
        ],
    }
