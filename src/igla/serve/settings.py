"""What a server is told: the file of `igla serve --config`, and its defaults."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from igla.errors import UserError

Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Section):
    body_bytes: Positive = Field(256 * 1024, description="Longest body of a request.")
    inputs: Positive = Field(32, description="Most texts in a request.")
    waiting_tokens: Positive = Field(
        32_768, description="Tokens that may wait; what would go beyond is answered 429."
    )
    seconds: Annotated[float, Field(gt=0)] = Field(
        30.0, description="After so long a request is answered 503."
    )
    drain_seconds: Annotated[float, Field(gt=0)] = Field(
        25.0, description="After SIGTERM, so long is given to what was accepted."
    )


class Settings(_Section):
    """Settings of a server.

    attributes  Perspective's attribute → the model's class that it stands for
    categories  OpenAI's category → the model's class
    Empty: TOXICITY and harassment stand for the last class of two, or the class of that name.
    """

    attributes: dict[str, str] = Field({})
    categories: dict[str, str] = Field({})
    limits: Limits = Limits()


def load_settings(path: Path | None) -> Settings:
    """Settings of a YAML file; UserError names what is wrong in it."""
    if path is None:
        return Settings()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return Settings.model_validate(content)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}, {where}: {first['msg']}.") from None
