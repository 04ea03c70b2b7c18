"""What no other service's protocol has: decisions, which words drive a score, and which models
there are."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from igla.serve import admin
from igla.serve.decisions import cuts_of, gravest, verdicts
from igla.serve.explain import Method
from igla.serve.labels import attributes_of
from igla.serve.models import Served
from igla.serve.protocols.kserve import refusal as refusal  # for the application
from igla.serve.scoring import Scored
from igla.serve.service import Service, route_class, service_of, version_header

router = APIRouter(prefix="/igla/v1", route_class=route_class(refusal), tags=["igla"])


class ScoreRequest(BaseModel):
    """model  none: the first that scores"""

    texts: list[str]
    model: str | None = None
    version: str | None = None


class ExplainRequest(BaseModel):
    text: Annotated[str, Field(max_length=20_000)]
    model: str | None = None
    version: str | None = None
    method: Method = "gradients"


class LoadRequest(BaseModel):
    """folder  a run or a model folder; none: the one that the model was loaded from"""

    folder: str | None = None


class UnloadRequest(BaseModel):
    """version  none: all of them"""

    version: str | None = None


@router.post("/score")
async def score(request: Request, body: ScoreRequest) -> JSONResponse:
    """What each text calls for (allow, review or block), and its probabilities."""
    service = service_of(request)
    served = service.classifier(body.model, body.version)
    found = await service.score(request, served, body.texts)
    rows = [_result(service, found, row) for row in range(len(body.texts))]
    return JSONResponse(
        {"model": served.name, "version": served.version, "results": rows},
        headers=version_header(served),
    )


@router.post("/explain")
async def explain(request: Request, body: ExplainRequest) -> JSONResponse:
    """Scores of a text, and what each word did to them."""
    service = service_of(request)
    served = service.classifier(body.model, body.version)
    found = await service.explain(request, served, body.text, body.method)
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
    """What is served, the newest version of each model first, and which pages there are beside the
    first."""
    service = service_of(request)
    return {
        "default": service.models.default.name,
        "models": [_described(service, one) for one in service.models.all],
        "pages": request.app.state.pages,
    }


@router.post("/models/{name}/load")
async def load(request: Request, name: str, body: LoadRequest) -> dict[str, Any]:
    """Let another version of a model answer, or a new model; needs a key for admin."""
    service = service_of(request)
    return _described(service, await admin.load(service, request, name, body.folder))


@router.post("/models/{name}/unload")
async def unload(request: Request, name: str, body: UnloadRequest) -> dict[str, Any]:
    """Take a version of a model away, or all of them; needs a key for admin."""
    going = admin.unload(service_of(request), request, name, body.version)
    return {"unloaded": [{"name": one.name, "version": one.version} for one in going]}


def _result(service: Service, found: Scored, row: int) -> dict[str, Any]:
    decided = verdicts(cuts_of(service.settings, found.served), found.probabilities[row])
    labels = zip(found.served.classes, found.probabilities[row], found.means[row], strict=True)
    return {
        "decision": gravest(decided),
        "windows": int(found.windows[row]),
        "labels": [
            {
                "label": label,
                "probability": float(probability),
                "mean": float(mean),
                "decision": decided.get(column),
            }
            for column, (label, probability, mean) in enumerate(labels)
        ],
    }


def _described(service: Service, served: Served) -> dict[str, Any]:
    if not served.scores:
        nothing: dict[str, Any] = {"classes": [], "grave": None, "decisions": []}
        return {"name": served.name, "version": served.version, **nothing}
    cuts = cuts_of(service.settings, served)
    return {
        "name": served.name,
        "version": served.version,
        "classes": list(served.classes),
        "grave": next(iter(attributes_of(service.settings, served.classes).values())),
        "decisions": [
            {"label": served.classes[column], "review": review, "block": block}
            for column, (review, block) in cuts.items()
        ],
    }
