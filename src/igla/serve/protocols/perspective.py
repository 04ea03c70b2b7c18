"""Google's Perspective API, v1alpha1 (Comment Analyzer API)."""

import re
from itertools import accumulate
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from igla.serve.labels import attributes_of
from igla.serve.language import detect
from igla.serve.scoring import Scored
from igla.serve.service import Refused, route_class, service_of, version_header
from igla.serve.suggestions import Suggestion

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
# Where a sentence ends. Nothing is tried twice: a text may be a row of a hundred thousand dots.
_END = re.compile(r"(?<![.!?…])[.!?…]++(?=\s|$)|\n")


def refusal(status: int, message: str) -> JSONResponse:
    """Google's shape of an error."""
    reason = _STATUS.get(status, "UNKNOWN")
    content = {"error": {"code": status, "message": message, "status": reason}}
    return JSONResponse(content, status)


router = APIRouter(prefix="/v1alpha1", route_class=route_class(refusal), tags=["Perspective"])


# What is given back as it came. Of a text with a most pydantic sees that its letters are whole.
Given = Annotated[str, Field(max_length=10_000)]


class _Message(BaseModel):
    """Fields in the case of JSON. As in all of Google's JSON, null stands for not given."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {name: value for name, value in content.items() if value is not None}


class Text(_Message):
    text: Annotated[str, Field(max_length=100_000)]
    type: str | None = None


class Asked(_Message):
    score_type: str | None = None
    score_threshold: float | None = None


class Score(_Message):
    value: Annotated[float, Field(ge=0, le=1)]
    type: str | None = None


class SuggestedScores(_Message):
    """What an attribute should have been. Scores of spans may be there as well; they are passed
    over, since models learn from whole texts."""

    summary_score: Score


class AnalyzeRequest(_Message):
    """A comment, and what is asked about it; what is sent beyond is passed over, as Google does."""

    comment: Text
    requested_attributes: Annotated[dict[str, Asked], Field(min_length=1, max_length=64)]
    languages: list[Given] = []
    do_not_store: bool = False
    client_token: Given | None = None
    span_annotations: bool = False


class SuggestCommentScoreRequest(_Message):
    """A comment, and the scores that it should have been given."""

    comment: Text
    attribute_scores: Annotated[dict[str, SuggestedScores], Field(min_length=1, max_length=64)]
    languages: list[Given] = []
    community_id: Given | None = None
    session_id: Given | None = None
    client_token: Given | None = None


@router.post("/comments:analyze")
async def analyze(request: Request, body: AnalyzeRequest) -> JSONResponse:
    """Scores of a comment. Whatever languages are named, the text is scored and its language told:
    clients name "en" as a matter of course."""
    service = service_of(request)
    served = service.models.scoring()
    known = attributes_of(service.settings, served.classes)
    for name, asked in body.requested_attributes.items():
        _check_attribute(name, asked.score_type, known)
    text = _text(body.comment)
    spans = [(0, len(text))]
    if body.span_annotations:
        spans = sentences(text, max(1, service.settings.limits.inputs - 1))
    pieces = [text, *(text[start:end] for start, end in spans)] if len(spans) > 1 else [text]
    found = await service.score(request, served, pieces, keep=not body.do_not_store)
    detected = detect(text)
    content: dict[str, Any] = {
        "attributeScores": {
            name: _scores(found, known[name], text, spans)
            for name, asked in body.requested_attributes.items()
            if _summary(found, known[name]) >= (asked.score_threshold or 0.0)
        },
        "languages": body.languages or [detected],
        "detectedLanguages": [detected],
    }
    if body.client_token is not None:
        content["clientToken"] = body.client_token
    return JSONResponse(content, headers=version_header(served))


@router.post("/comments:suggestscore")
async def suggestscore(request: Request, body: SuggestCommentScoreRequest) -> JSONResponse:
    """Takes down what scores a comment should have had, for who learns from it; needs a key for
    feedback where keys are asked for. The answer means that it is on the disk."""
    service = service_of(request)
    service.check_ready()
    by = service.check_key(request, "feedback")
    served = service.models.scoring()
    known = attributes_of(service.settings, served.classes)
    scores: dict[str, float] = {}
    for name, suggested in body.attribute_scores.items():
        _check_attribute(name, suggested.summary_score.type, known)
        label, value = served.classes[known[name]], suggested.summary_score.value
        if scores.setdefault(label, value) != value:
            raise Refused(400, f"Attribute {name} contradicts another that stands for {label}.")
    text = _text(body.comment)
    detected = detect(text)
    await service.suggest(
        Suggestion(
            text=text,
            scores=scores,
            model=served.name,
            version=served.version,
            by=by,
            community=body.community_id,
            session=body.session_id,
            client_token=body.client_token,
            languages=tuple(body.languages or [detected]),
        )
    )
    content: dict[str, Any] = {"detectedLanguages": [detected]}
    if body.languages:
        content["requestedLanguages"] = body.languages
    if body.client_token is not None:
        content["clientToken"] = body.client_token
    return JSONResponse(content, headers=version_header(served))


def sentences(text: str, most: int) -> list[tuple[int, int]]:
    """Begin and end of each sentence of a text; of more than `most`, the last one holds the rest.

    A text without any, say of line feeds alone, is one.
    """
    found, begin = [], 0
    for end in [*(match.end() for match in _END.finditer(text)), len(text)]:
        sentence = text[begin:end]
        if sentence.strip():
            found.append((end - len(sentence.lstrip()), end))
        begin = end
    found = found or [(0, len(text))]
    return [*found[: most - 1], (found[most - 1][0], found[-1][1])] if len(found) > most else found


def _check_attribute(name: str, score_type: str | None, known: dict[str, int]) -> None:
    if name not in known:
        raise Refused(400, f"Unknown requested attribute: {name}")
    if score_type not in (None, "PROBABILITY", "SCORE_TYPE_UNSPECIFIED"):
        raise Refused(400, f"Attribute {name} has no score type {score_type}.")


def _text(comment: Text) -> str:
    if not comment.text.strip():
        raise Refused(400, "Comment must be non-empty.")
    return comment.text


def _scores(found: Scored, column: int, text: str, spans: list[tuple[int, int]]) -> dict[str, Any]:
    values = found.probabilities[1:, column] if len(spans) > 1 else found.probabilities[:, column]
    places = _utf16(text)
    return {
        "spanScores": [
            {"begin": places[start], "end": places[end], "score": _score(float(value))}
            for (start, end), value in zip(spans, values, strict=True)
        ],
        "summaryScore": _score(_summary(found, column)),
    }


def _summary(found: Scored, column: int) -> float:
    return float(found.probabilities[0, column])


def _score(value: float) -> dict[str, Any]:
    return {"value": value, "type": "PROBABILITY"}


def _utf16(text: str) -> list[int]:
    """Place of each character in UTF-16 code units, in which Google counts, and of the end."""
    return [0, *accumulate(2 if ord(character) > 0xFFFF else 1 for character in text)]
