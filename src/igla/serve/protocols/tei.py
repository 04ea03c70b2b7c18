"""Hugging Face's Text Embeddings Inference: scores of classifiers, embeddings of encoders."""

from importlib.metadata import version
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError

from igla.serve.scoring import Scored
from igla.serve.service import Refused, described, route_class, service_of, version_header
from igla.serve.tokens import Side

_KINDS = {413: "Validation", 424: "Backend", 500: "Backend", 429: "Overloaded", 503: "Unhealthy"}


def refusal(status: int, message: str) -> JSONResponse:
    """The shape of its errors; what is not valid is 422 there, not 400."""
    status = 422 if status == 400 else status
    kind = _KINDS.get(status, "Validation")
    return JSONResponse({"error": message, "error_type": kind}, status)


router = APIRouter(route_class=route_class(refusal), tags=["Text Embeddings Inference"])


class PredictRequest(BaseModel):
    """A text; a pair of texts; or a list of such, each in a list of its own.

    truncate    a long text is cut, not scored in windows
    raw_scores  logits in place of probabilities
    """

    inputs: str | list[str] | list[list[str]]
    truncate: bool | None = False
    raw_scores: bool = False


class EmbedRequest(BaseModel):
    """A text, or several.

    normalize             vectors of length 1
    truncate              a long text is cut; without it, it is refused
    truncation_direction  the side that is cut off
    prompt_name           refused: no model here has prompts
    dimensions            refused unless it is the model's own
    """

    inputs: str | list[str]
    normalize: bool = True
    truncate: bool | None = False
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    prompt_name: str | None = None
    dimensions: int | None = None


@router.post("/", include_in_schema=False)  # where Hugging Face's endpoints have it
async def whichever(request: Request, body: dict[str, Any]) -> JSONResponse:
    """What the default model gives."""
    try:
        if service_of(request).models.default.scores:
            return await predict(request, PredictRequest.model_validate(body))
        return await embed(request, EmbedRequest.model_validate(body))
    except ValidationError as error:
        raise Refused(400, described(error)) from None


@router.post("/predict")
async def predict(request: Request, body: PredictRequest) -> JSONResponse:
    """Labels with their scores, the likeliest first."""
    service = service_of(request)
    batch = isinstance(body.inputs, list) and any(isinstance(one, list) for one in body.inputs)
    texts = [_text(one) for one in body.inputs] if batch else [_text(body.inputs)]
    truncate = bool(body.truncate)
    found = await service.score(request, service.models.scoring(), texts, truncate=truncate)
    rows = [_ranked(found, row, raw=body.raw_scores) for row in range(len(texts))]
    return JSONResponse(rows if batch else rows[0], headers=version_header(found.served))


@router.post("/embed")
async def embed(request: Request, body: EmbedRequest) -> JSONResponse:
    """A vector for each text."""
    service = service_of(request)
    served = service.models.embedding()
    if body.prompt_name is not None:
        raise Refused(400, f"prompt_name: the model has no prompt {body.prompt_name}.")
    width = served.embedder.width
    if body.dimensions not in (None, width):
        raise Refused(400, f"dimensions: the model gives {width}, not {body.dimensions}.")
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    side: Side = "left" if body.truncation_direction.lower() == "left" else "right"
    cut = side if body.truncate else None
    found = await service.embed(request, served, texts, normalize=body.normalize, cut=cut)
    return JSONResponse(found.vectors.tolist(), headers=version_header(served))


@router.get("/info")
async def info(request: Request) -> dict[str, Any]:
    """What is served, under that server's names."""
    service = service_of(request)
    served = service.models.default
    limits, length = service.settings.limits, served.embedder.encoder.max_length
    pooling = served.embedder.model.pooling
    kind: dict[str, Any] = {
        "embedding": {"pooling": "last_token" if pooling == "last" else pooling}
    }
    if served.scores:
        names = {str(index): name for index, name in enumerate(served.classes)}
        ids = {name: int(index) for index, name in names.items()}
        kind = {"classifier": {"id2label": names, "label2id": ids}}
    return {
        "model_id": served.name,
        "model_sha": served.version,
        "model_dtype": "bfloat16" if served.precision == "bf16" else "float32",
        "model_type": kind,
        "max_concurrent_requests": limits.waiting_tokens // length,
        "max_input_length": length,
        "max_batch_tokens": limits.waiting_tokens,
        "max_client_batch_size": limits.inputs,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": version("igla"),
    }


@router.get("/health")
async def health(request: Request) -> Response:
    """200 while requests are taken."""
    service_of(request).check_ready()
    return Response()


def _text(one: Any) -> str:
    if isinstance(one, str):
        return one
    if not 1 <= len(one) <= 2:
        raise Refused(400, f"inputs: {len(one)} texts where one or a pair was expected.")
    return "\n".join(one)  # the model was trained on single texts


def _ranked(found: Scored, row: int, *, raw: bool) -> list[dict[str, Any]]:
    values = (found.logits if raw else found.probabilities)[row]
    pairs = zip(found.served.classes, values.tolist(), strict=True)
    return [
        {"label": label, "score": score} for label, score in sorted(pairs, key=lambda one: -one[1])
    ]
