"""The models that a server holds: opening them, and finding them by name and version."""

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from igla.errors import UserError
from igla.infer.classifier import Classifier, model_folder
from igla.infer.embedder import POOLING_FILE, Embedder, OfDecoder, OfEncoder
from igla.infer.engines import Engine
from igla.infer.generator import Generator, is_decoder
from igla.infer.precision import compute_in, wanted
from igla.infer.window import fastest_window
from igla.model.folder import has_classifier
from igla.sealed import MANIFEST, BrokenSeal, check_sealed, file_digest
from igla.text.tokenizer import TextEncoder

# It stands in addresses and in a header of each answer.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
# The kinds of files that a model and its tokenizer are read from.
_READ = (".safetensors", ".json", ".txt")
Precision = Literal["auto", "float32", "bf16", "int8", "int4"]
Window = int | Literal["auto"] | None
Kind = Literal["classifier", "encoder", "decoder"]
_WARM_UP = "Проверка перед началом работы. Checking before the work begins."


class WrongKind(Exception):
    """A model was asked for what its kind does not give."""

    def __init__(self, served: "Served"):
        kind, gives = {
            "classifier": ("a classifier", "scores, and embeddings of its encoder"),
            "encoder": ("an encoder without a classifier", "embeddings alone"),
            "decoder": ("a decoder", "texts, and embeddings where torch computes it"),
        }[served.kind]
        super().__init__(f"{served.name} is {kind}: it gives {gives}.")


@dataclass(frozen=True, eq=False)
class Served:
    """A model in service.

    version  the first 12 hex digits of the sha256 of its folder's files
    where    the run or folder as it was named, from which it can be loaded anew
    model    a classifier, an encoder alone, or a decoder
    """

    name: str
    version: str
    where: Path
    model: Classifier | OfEncoder | Generator

    @property
    def kind(self) -> Kind:
        if isinstance(self.model, Classifier):
            return "classifier"
        return "encoder" if isinstance(self.model, Embedder) else "decoder"

    @property
    def scores(self) -> bool:
        return self.kind == "classifier"

    @property
    def classifier(self) -> Classifier:
        """Raises WrongKind where there is none, as the other parts do."""
        if isinstance(self.model, Classifier):
            return self.model
        raise WrongKind(self)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.classifier.rule.classes

    @cached_property
    def embedder(self) -> OfEncoder | OfDecoder:
        if isinstance(self.model, Generator):
            if self.model.engine.name != "torch":  # what else computes keeps its states to itself
                raise WrongKind(self)
            return Embedder.of_decoder(self.model.model, self.model.tokenizer, self.model.folder)
        return Embedder.of(self.model) if isinstance(self.model, Classifier) else self.model

    @property
    def generator(self) -> Generator:
        if isinstance(self.model, Generator):
            return self.model
        raise WrongKind(self)

    @property
    def fills_masks(self) -> bool:
        return isinstance(self.model, Generator) and self.model.masks is not None

    @property
    def encoder(self) -> TextEncoder:
        if isinstance(self.model, Generator):
            raise WrongKind(self)
        return self.model.encoder

    @property
    def created(self) -> int:
        """When it was made, in seconds since 1970; 0 where its folder has gone since."""
        try:
            return int(self.where.stat().st_mtime)
        except OSError:
            return 0

    @property
    def precision(self) -> str:
        """What it computes in."""
        if isinstance(self.model, Generator):
            return self.model.engine.said
        return self.model.model.encoder.precision

    @property
    def gives(self) -> str:
        """In words, for people."""
        if self.kind == "decoder":
            if self.fills_masks:
                return f"texts, by WeDLM with a window of {self.generator.window}"
            return "texts, one token after another"
        return ", ".join(self.classes) if self.scores else f"embeddings of {self.embedder.width}"


def open_model(
    where: str | Path,
    name: str,
    precision: Precision = "auto",
    *,
    engine: str = "torch",
    provider: str = "cpu",
    window: Window = None,
) -> Served:
    """Load a run or a model folder and let it score once; UserError when it cannot be served.

    precision  auto: bf16 where this processor's products are faster in it, and float32 for
               decoders, which wait for memory and not for products
    engine     of decoders, by name
    provider   of the onnx engine
    window     of decoders that fill masks; auto: by measurement
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for a model: letters of a to z, digits, . _ - alone.")
    try:
        return _opened(where, name, precision, engine, provider, window)
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}.") from None


def _opened(
    where: str | Path, name: str, precision: Precision, engine: str, provider: str, window: Window
) -> Served:
    folder = model_folder(where).resolve()
    decodes = is_decoder(folder)
    of_decoder = "float32" if precision == "auto" else precision
    by = Engine(engine, of_decoder, provider) if decodes else None
    model: Classifier | OfEncoder | Generator
    with ThreadPoolExecutor() as beside:  # sums of files are computed beside other work
        before = beside.submit(content_version, folder, by)
        _check(folder)
        version = before.result()
        if by is None:
            encoder = Classifier.load(folder) if has_classifier(folder) else Embedder.load(folder)
            after = beside.submit(content_version, folder, by)
            model = _prepared(encoder, precision)
        else:
            model = _decoder(folder, by, window)
            after = beside.submit(content_version, folder, by)
    if after.result() != version:
        raise UserError(f"{folder} has changed while it was read; load it again.")
    return Served(name, version, Path(where).absolute(), model)


def _check(folder: Path) -> None:
    """UserError where a folder that is sealed is not as it was."""
    if not (folder / MANIFEST).is_file():
        return
    try:
        check_sealed(folder)
    except BrokenSeal as error:
        raise UserError(f"{folder} is damaged: {error}") from None


def _decoder(folder: Path, engine: Engine, window: Window) -> Generator:
    generator = Generator.load(folder, engine)
    generator.write(_WARM_UP, max_tokens=2)
    if generator.masks is not None and window is not None:
        generator.decide_at_once(fastest_window(generator) if window == "auto" else window)
    return generator


def _prepared(model: Classifier | OfEncoder, precision: Precision) -> Classifier | OfEncoder:
    compute_in(model.model, wanted(precision))
    model.model.requires_grad_(False)
    warm_up = model.logits if isinstance(model, Classifier) else model.embeddings
    warm_up([_WARM_UP])
    return model


class Models:
    """The models in service: of each name some versions, the newest of which answers who names
    none. The first name is the default."""

    def __init__(self, served: Sequence[Served], most: int):
        self._held = {one.name: [one] for one in served}
        self._most = most
        if len(self._held) < len(served):
            raise UserError("Two models have the same name: write NAME=FOLDER.")

    @property
    def default(self) -> Served:
        return next(iter(self._held.values()))[0]

    @property
    def all(self) -> list[Served]:
        """By name, the newest version of each first."""
        return [one for versions in self._held.values() for one in versions]

    def scoring(self) -> Served:
        """The first classifier; the default where there is none."""
        return next((one for one in self.all if one.scores), self.default)

    def embedding(self) -> Served:
        """The first encoder without a classifier, or else the first classifier's own, or else the
        first decoder."""
        order = ("encoder", "classifier", "decoder")
        return min(self.all, key=lambda one: order.index(one.kind))

    def writing(self) -> Served:
        """The first decoder; the default where there is none."""
        return next((one for one in self.all if one.kind == "decoder"), self.default)

    def find(self, name: str | None = None, version: str | None = None) -> Served | None:
        """The model of a name and a version, where either is asked for."""
        return next((one for one in self.of(name) if version in (None, one.version)), None)

    def of(self, name: str | None) -> list[Served]:
        """The versions of a name, the newest first."""
        return [*self._held.get(self.default.name if name is None else name, [])]

    def put(self, served: Served) -> list[Served]:
        """Let a version answer from now on; what had to go for it."""
        versions = [one for one in self.of(served.name) if one.version != served.version]
        self._held[served.name] = [served, *versions[: self._most - 1]]
        return versions[self._most - 1 :]

    def drop(self, name: str, version: str | None) -> list[Served]:
        """Take a version away, or a name with all of them; what went. The default name stays with
        one version at least: UserError."""
        going = [one for one in self.of(name) if version in (None, one.version)]
        left = [one for one in self.of(name) if one not in going]
        if left:
            self._held[name] = left
        elif name == self.default.name:
            raise UserError(f"{name} is the default model; another version has to be loaded first.")
        else:
            self._held.pop(name, None)
        return going


def content_version(folder: Path, engine: Engine | None = None) -> str:
    """The version of a model folder, by its files; see Served.

    engine  of a decoder, which may read other files of it
    """
    files = sorted(one for one in folder.iterdir() if one.suffix in _READ)
    files += [one for one in (folder / POOLING_FILE,) if one.is_file()]
    files += [] if engine is None else engine.files(folder)
    sums = "".join(f"{one.relative_to(folder)}\n{file_digest(one)}\n" for one in files)
    return hashlib.sha256(sums.encode()).hexdigest()[:12]
