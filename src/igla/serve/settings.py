"""What a server is told: the file of `igla serve --config`, and its defaults."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from igla.errors import UserError, first_fault
from igla.recipe import Count, Positive, Section, Share, read_yaml


class Limits(Section):
    body_bytes: Count = Field(256 * 1024, description="Longest body of a request.")
    inputs: Count = Field(32, description="Most texts in a request.")
    requests: Count = Field(
        128, description="Requests in hand at once; others are answered 429 unparsed."
    )
    waiting_tokens: Count = Field(
        32_768, description="Tokens that may wait; what would go beyond is answered 429."
    )
    versions: Count = Field(2, description="Versions of a model that are held; the oldest goes.")
    seconds: Positive = Field(30.0, description="After so long a request is answered 503.")
    writing_seconds: Positive = Field(
        300.0, description="The same for a text that a decoder writes."
    )
    cache_tokens: Count = Field(
        16_384, description="Tokens whose keys and values a decoder holds, of all texts together."
    )
    drain_seconds: Positive = Field(
        25.0, description="After SIGTERM, so long is given to what was accepted."
    )


class Decision(Section):
    review: Share | None = Field(
        None, description="Least probability to be looked at; none: the model's own threshold."
    )
    block: Share = Field(0.9, description="Least probability to be blocked.")

    @model_validator(mode="after")
    def _in_order(self) -> "Decision":
        if self.review is not None and self.review > self.block:
            raise ValueError("review is above block")
        return self


class Log(Section):
    requests: bool = Field(True, description="A line of JSON for each request, on stderr.")
    texts: bool = Field(False, description="With its texts, but for those sent with doNotStore.")


def _window(value: object) -> object:
    if value in (None, "auto") or str(value).isdecimal():
        return value
    raise ValueError("a number of positions or auto is wanted")


class Settings(Section):
    """Settings of a server.

    attributes  Perspective's attribute → the model's class that it stands for
    categories  OpenAI's category → the model's class
    decisions   class → from which probability it is to be looked at, and to be blocked
    Empty: TOXICITY and harassment stand for the last class of two, or the class of that name, and
    decisions are made by it.
    """

    attributes: dict[str, str] = Field({})
    categories: dict[str, str] = Field({})
    decisions: dict[str, Decision] = Field({})
    precision: Literal["auto", "float32", "bf16", "int8", "int4"] = Field(
        "auto",
        description="Arithmetic of the models; auto: by measurement. int4 is of decoders alone.",
    )
    engine: str = Field("torch", description="What computes decoders: torch, onnx, llamacpp.")
    provider: str = Field("cpu", description="Of the onnx engine: cpu, cuda …")
    window: Annotated[int | Literal["auto"] | None, BeforeValidator(_window)] = Field(
        None,
        description="Positions that a decoder which fills masks decides at once; auto: by "
        "measurement when it is loaded.",
    )
    guard: bool = Field(
        False,
        description="Whether evasive spellings are scored as written and as text.guard reads them; "
        "the graver score counts, of three classes the mean.",
    )
    traces: bool = Field(
        False, description="Send spans of requests to OpenTelemetry's collector (igla[otel])."
    )
    limits: Limits = Limits()
    log: Log = Log()

    @model_validator(mode="after")
    def _of_its_engine(self) -> "Settings":
        if self.provider != "cpu" and self.engine != "onnx":
            raise ValueError(
                f"the provider {self.provider} is of the onnx engine, not {self.engine}"
            )
        return self


S = TypeVar("S", bound=Settings)


def load_settings(path: Path | None, **given: object) -> Settings:
    """Settings of a YAML file; see read_settings."""
    return read_settings(Settings, path, **given)


def read_settings(kind: type[S], path: Path | None, **given: object) -> S:
    """Settings of a kind from a YAML file; UserError names what is wrong in it.

    given  fields in place of the file's; None stands for not given
    """
    try:
        content = {} if path is None else read_yaml(path) or {}
        if isinstance(content, dict):
            content |= {name: value for name, value in given.items() if value is not None}
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path or 'settings'}, {first_fault(error)}.") from None
