"""What OpenAI's clients send to have texts written."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from igla.infer.constraint import Constraint, Grammars
from igla.infer.sampling import Sampling

Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Tokens = Annotated[int, Field(ge=1)]


class StreamOptions(BaseModel):
    include_usage: bool = False
    include_obfuscation: bool = False  # of the lengths of pieces; there is none here


class _Asked(BaseModel):
    """What both kinds of requests have. What is not known is refused: an argument that is passed
    over in silence would be taken for obeyed.

    model           a name, or name/version as answers have it
    top_k to regex  are not OpenAI's; its clients send them as extra_body
    regex           that the whole text matches, in Rust's syntax
    user to service_tier  are taken and do nothing here
    """

    model_config = ConfigDict(extra="forbid")
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] = 1
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[int, Bias] | None = None
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    typical_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    regex: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, content: Any) -> Any:
        """What is null is not asked for, whatever it is: so OpenAI has it."""
        if isinstance(content, Mapping):
            return {name: value for name, value in content.items() if value is not None}
        return content

    @model_validator(mode="after")
    def _check_stream_options(self) -> "_Asked":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for stream=true alone")
        return self

    def sampling(self, number: int) -> Sampling:
        """Of the continuation of a number: those of one request must not be the same."""
        return Sampling(
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=self.logit_bias or {},
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k,
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p,
            typical_p=self.typical_p,
            seed=self.seed,
        ).of_text(number)

    def constraint(self, grammars: Grammars) -> Constraint | None:
        """What the texts are held to."""
        return None if self.regex is None else grammars.regex(self.regex)

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(_Asked):
    """logprobs  with so many alternatives
    echo      the prompt comes before what is written
    best_of   is refused unless it is n
    """

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: Tokens | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool = False
    best_of: int | None = None

    @model_validator(mode="after")
    def _check(self) -> "CompletionRequest":
        if self.best_of not in (None, self.n):
            raise ValueError("best_of is not there: all n texts are given")
        if self.echo and (self.logprobs is not None or self.stream):
            raise ValueError("echo goes neither with logprobs nor with stream")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or several, each a text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and all(isinstance(one, int) for one in self.prompt):
            return [[one for one in self.prompt if isinstance(one, int)]]
        return [one for one in self.prompt if not isinstance(one, int)]

    @property
    def alternatives(self) -> int | None:
        return self.logprobs


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """What else a message holds is for the model's template to read."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: str | list[Part] | None = None

    def as_template_reads(self) -> dict[str, Any]:
        parts = self.content if isinstance(self.content, list) else None
        text = self.content if parts is None else "\n".join(part.text for part in parts)
        return {**self.model_dump(exclude_none=True), "content": text or ""}


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")] = {}
    strict: bool | None = None


class Format(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    @model_validator(mode="after")
    def _check(self) -> "Format":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("type=json_schema and json_schema go together")
        return self


class ChatRequest(_Asked):
    """logprobs and top_logprobs  the words' probabilities, with so many alternatives"""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Format | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_tools(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        names = ("tools", "functions", "tool_choice", "function_call")
        for name in names:
            if content.get(name) not in (None, [], "none"):
                raise ValueError(f"{name}: the model is served without tools")
        return {name: value for name, value in content.items() if name not in names}

    @model_validator(mode="after")
    def _check(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is for logprobs=true alone")
        if self.regex is not None and self.response_format is not None:
            raise ValueError("regex and response_format do not go together")
        return self

    def constraint(self, grammars: Grammars) -> Constraint | None:
        asked = self.response_format
        if asked is None or asked.type == "text":
            return super().constraint(grammars)
        if asked.json_schema is None:
            return grammars.json_object()
        return grammars.json_schema(asked.json_schema.schema_)

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None
