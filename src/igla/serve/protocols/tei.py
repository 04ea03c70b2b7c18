"""Hugging Face's Text Embeddings Inference, for classifiers."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from igla.serve.scoring import Scored
from igla.serve.service import Refused, route_class, service_of, version_header

_KINDS = {413: "Validation", 424: "Backend", 429: "Overloaded", 503: "Unhealthy"}


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


@router.post("/", include_in_schema=False)  # where Hugging Face's endpoints have it
@router.post("/predict")
async def predict(request: Request, body: PredictRequest) -> JSONResponse:
    """Labels with their scores, the likeliest first."""
    service = service_of(request)
    batch = isinstance(body.inputs, list) and any(isinstance(one, list) for one in body.inputs)
    texts = [_text(one) for one in body.inputs] if batch else [_text(body.inputs)]
    truncate = bool(body.truncate)
    found = await service.score(request, service.models.default, texts, truncate=truncate)
    rows = [_ranked(found, row, raw=body.raw_scores) for row in range(len(texts))]
    return JSONResponse(rows if batch else rows[0], headers=version_header(found.served))


@router.get("/info")
async def info(request: Request) -> dict[str, Any]:
    """What is served, under that server's names."""
    service = service_of(request)
    served = service.models.default
    classifier, limits = served.classifier, service.settings.limits
    names = {str(index): name for index, name in enumerate(served.classes)}
    return {
        "model_id": served.name,
        "model_sha": served.version,
        "model_dtype": "bfloat16" if classifier.precision == "bf16" else "float32",
        "model_type": {
            "classifier": {
                "id2label": names,
                "label2id": {name: int(index) for index, name in names.items()},
            }
        },
        "max_concurrent_requests": limits.waiting_tokens // classifier.encoder.max_length,
        "max_input_length": classifier.encoder.max_length,
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
