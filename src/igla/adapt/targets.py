"""Which layers an adapter can be attached to, and what Hugging Face calls them.

Our layers and theirs are not one to one: an encoder's queries, keys and values are three layers
there and one here, a GPT-2's the other way round. A target is a layer of theirs.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import Any

from torch import nn

from igla.adapt.config import ALL_LINEAR
from igla.errors import UserError
from igla.model.decoder import Decoder
from igla.model.decoder.families import FAMILIES as DECODERS
from igla.model.decoder.folder import place_of
from igla.model.encoder import SequenceClassifier
from igla.model.families import FAMILIES
from igla.model.folder import their_names
from igla.model.parts import Embedding, Linear


@dataclass(frozen=True)
class Piece:
    """Rows of the weight of one of our layers: `rows` of them from `start` on."""

    module: str
    start: int
    rows: int


@dataclass(frozen=True)
class Target:
    """A layer as Hugging Face has it.

    name        theirs, of the whole model with its head
    inner       whether it is inside the model's layers, and not an embedding or a head
    pieces      of our layers, that its outputs are made of, in their order
    transposed  whether its folder keeps the matrix as [inputs, outputs]
    """

    name: str
    inner: bool
    pieces: tuple[Piece, ...]
    transposed: bool = False


def targets_of(model: nn.Module, model_type: str) -> tuple[Target, ...]:
    """All layers of a model that an adapter can be attached to, in the model's order.

    model_type  of its Hugging Face folder
    """
    if isinstance(model, SequenceClassifier):
        return tuple(_of_encoder(model, model_type))
    if isinstance(model, Decoder):
        return tuple(_of_decoder(model, model_type))
    raise TypeError(f"Adapters do not know the layers of a {type(model).__name__}.")


def _of_encoder(model: nn.Module, model_type: str) -> Iterable[Target]:
    family = FAMILIES[model_type]
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            rows = module.out_features
        elif isinstance(module, Embedding) and name == "encoder.embeddings.word":
            rows = module.num_embeddings
        else:
            continue
        theirs = [one.removesuffix(".weight") for one in their_names(f"{name}.weight", family)]
        rows //= len(theirs)
        for index, one in enumerate(theirs):
            inner = name.startswith("encoder.layers.")
            yield Target(one, inner, (Piece(name, index * rows, rows),))


def _of_decoder(model: Decoder, model_type: str) -> Iterable[Target]:
    family = DECODERS[model_type]
    pieces: defaultdict[tuple[str, bool], list[tuple[int, Piece]]] = defaultdict(list)
    for name, module in model.named_modules():
        # A table of words that is the head as well cannot be changed for the one use alone.
        table = isinstance(module, Embedding) and name == "words" and not model.config.tied
        if isinstance(module, Linear) or table:
            place, _ = place_of(f"{name}.weight", family)
            piece = Piece(name, 0, len(module.weight))
            pieces[place.module, place.transposed].append((place.part, piece))
    for (theirs, transposed), found in pieces.items():
        parts = tuple(piece for _, piece in sorted(found, key=itemgetter(0)))
        yield Target(theirs, parts[0].module.startswith("layers."), parts, transposed)


def chosen(targets: Sequence[Target], patterns: Sequence[str], setting: str) -> tuple[Target, ...]:
    """The targets that any of the patterns names; UserError for one that names none."""
    found = {pattern: _matching(targets, pattern) for pattern in patterns}
    for pattern, some in found.items():
        if not some:
            ends = dict.fromkeys(target.name.rpartition(".")[2] for target in targets)
            raise UserError(
                f"{setting}: no layer of this model is called {pattern}; there are "
                f"{ALL_LINEAR}, {', '.join(ends)}."
            )
    wanted = {target.name for some in found.values() for target in some}
    return tuple(target for target in targets if target.name in wanted)


def _matching(targets: Sequence[Target], pattern: str) -> list[Target]:
    if pattern == ALL_LINEAR:
        return [target for target in targets if target.inner]
    return [one for one in targets if fnmatchcase(f".{one.name}.", f"*.{pattern}.*")]


def inner_modules(targets: Sequence[Target], whole: Sequence[str] = ()) -> list[str]:
    """Our linear layers inside the model's layers, without those that are trained whole."""
    left_out = chosen(targets, whole, "adapt.whole")
    trained = {piece.module for one in left_out for piece in one.pieces}
    inner = (piece.module for one in targets if one.inner for piece in one.pieces)
    return [module for module in dict.fromkeys(inner) if module not in trained]


def endings(wanted: Sequence[str], all_names: Sequence[str]) -> list[str]:
    """The shortest endings of names that tell the wanted ones from all others."""
    others = [name for name in all_names if name not in set(wanted)]
    found = {}
    for name in wanted:
        parts = name.split(".")
        tails = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        found[
            next(
                (tail for tail in tails if not any(_ends(other, tail) for other in others)),
                name,
            )
        ] = True
    return list(found)


def _ends(name: str, tail: str) -> bool:
    return name == tail or name.endswith(f".{tail}")


def adapted(model: nn.Module) -> dict[str, Any]:
    """The layers that have adapters, by our name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear | Embedding) and module.adapter is not None
    }
