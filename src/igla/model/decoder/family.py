"""What has to be known of an architecture of Hugging Face to read and write its folders."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from igla.errors import UserError
from igla.model.decoder.config import DecoderConfig


@dataclass(frozen=True)
class Place:
    """Where a folder keeps one of our modules.

    module      theirs
    part        which of how many equal parts of its outputs is ours
    transposed  whether its matrices are [inputs, outputs]
    experts     of matrices for experts, in place of module: the modules of expert {e} that are ours
                one above the other
    """

    module: str = ""
    part: int = 0
    parts: int = 1
    transposed: bool = False
    experts: tuple[str, ...] = ()

    def of_layer(self, layer: str) -> "Place":
        """The same with the layer's number in it."""
        module, *experts = (name.replace("{i}", layer) for name in (self.module, *self.experts))
        return replace(self, module=module, experts=tuple(experts))


@dataclass(frozen=True)
class Family:
    """How one architecture is spelt.

    body     prefix of the tensors but the head's; folders saved without a head lack it
    places   our module → theirs; {i} is the layer. None: their names are ours
    read     from a config.json and where it is
    write    the architecture's fields of a config.json
    ignored  ends of names of tensors that older folders hold and nobody needs
    """

    architecture: str
    body: str
    places: Mapping[str, Place] | None
    read: Callable[[Mapping[str, Any], str], DecoderConfig]
    write: Callable[[DecoderConfig], dict[str, Any]]
    ignored: tuple[str, ...] = ()


def needed(content: Mapping[str, Any], name: str, where: str) -> Any:
    """A field that every config.json of the architecture has."""
    if content.get(name) is None:
        raise UserError(f"{where}: the field {name} is missing.")
    return content[name]


def count(content: Mapping[str, Any], name: str, where: str, otherwise: int | None = None) -> int:
    """A field that is a whole number above 0; `otherwise` where it is not given."""
    value = otherwise if content.get(name) is None else content[name]
    if value is None:
        value = needed(content, name, where)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{where}: {name} must be a whole number above 0, but is {value!r}.")
    return value


def refuse(content: Mapping[str, Any], plain: Mapping[str, Any], where: str) -> None:
    """UserError for a field that asks for something other than the one thing that is supported."""
    for name, value in plain.items():
        if content.get(name, value) not in (value, None):
            raise UserError(f"{where}: {name} {content[name]!r} is not supported, only {value!r}.")


def choice(content: Mapping[str, Any], name: str, known: Mapping[str, str], where: str) -> str:
    """Our name for the value of a field."""
    value = needed(content, name, where)
    if not isinstance(value, str) or value not in known:
        raise UserError(
            f"{where}: {name} {value!r} is not supported; supported are {', '.join(known)}."
        )
    return known[value]


def spelt(known: Mapping[str, str], ours: str) -> str | None:
    """Their value for our name; None where they have none."""
    return next((theirs for theirs, name in known.items() if name == ours), None)
