"""What the training of a classifier needs before its first step: data, tokenizer, model."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igla.data.dataset import Dataset, load_dataset
from igla.data.rows import in_turns, sample
from igla.data.selection import UNUSED, Decision
from igla.data.split import TEST, TRAIN, VALIDATION
from igla.data.store import TokenStore, open_store
from igla.errors import UserError
from igla.infer.classifier import model_folder
from igla.infer.scoring import score
from igla.model.bases import BUNDLED, bundled_folder
from igla.model.config import EncoderConfig, named_config
from igla.model.encoder import SequenceClassifier
from igla.model.folder import load_classifier, read_json, read_shape
from igla.model.hub import base_folder
from igla.model.ngrams import spell
from igla.recipe import AUTO_BASE, BASELINE, Recipe
from igla.sealed import write_durably
from igla.text.script import mostly_russian
from igla.text.tokenizer import TextEncoder, measure_fit
from igla.train.task import Say
from igla.train.vocabulary import open_tokenizer, start_words

DATA = "data.json"
_FIT_SAMPLE = 2000


@dataclass(frozen=True)
class Setup:
    """Everything settled before the first step.

    base       the folder of the base, or None from scratch
    base_name  what the recipe calls it, or was chosen in place of `auto`
    content    the config.json that the base came with, or the family's name alone
    """

    dataset: Dataset
    encoder: TextEncoder
    store: TokenStore
    base: Path | None
    base_name: str | None
    content: dict[str, Any]
    decisions: tuple[Decision, ...]

    def rows(self, part: int) -> np.ndarray:
        """Numbers of the rows of a part."""
        return self.dataset.part(part)

    def shrunk(self, rows: int) -> "Setup":
        """The same with at most so many rows in each part, of all classes alike."""
        strata = self.dataset.labels.strata()
        parts = np.full_like(self.dataset.parts, UNUSED)
        for part in (TRAIN, VALIDATION, TEST):
            inside = self.rows(part)
            chosen = inside[in_turns(strata[inside])[:rows]]
            parts[chosen] = part
        return replace(self, dataset=replace(self.dataset, parts=parts))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.dataset.labels.classes


def set_up(recipe: Recipe, folder: Path, say: Say) -> Setup:
    """Read and split the data, get the tokenizer, and tokenize, telling every decision."""
    dataset = load_dataset(recipe.data, recipe.train.seed)
    check_unchanged(dataset.fingerprint, folder / DATA)
    for decision in dataset.decisions:
        say(decision.said)
    recipe = _with_base(recipe, dataset, say)
    base = None if recipe.model.base is None else base_folder(recipe.model.base)
    models = origins(recipe, base)
    check_splits(models, dataset)
    texts = _Texts(dataset, dataset.part(TRAIN))
    encoder = open_tokenizer(recipe, texts, base, folder, say)
    store = open_store(dataset, encoder)
    decisions = (*dataset.decisions, *_token_decisions(dataset, encoder, store))
    for decision in decisions[len(dataset.decisions) :]:
        say(decision.said)
    more = {"classes": dataset.labels.classes, **split_note(dataset, models)}
    note_data(folder / DATA, dataset.fingerprint, decisions, **more)
    family = {"model_type": "bert"} if base is None else read_json(base / "config.json")
    return Setup(dataset, encoder, store, base, recipe.model.base, family, decisions)


def _with_base(recipe: Recipe, dataset: Dataset, say: Say) -> Recipe:
    """The recipe with the base that suits the language of the texts, where it leaves it open."""
    if recipe.model.base != AUTO_BASE:
        return recipe
    russian = mostly_russian(dataset.texts(sample(dataset.part(TRAIN), _FIT_SAMPLE, seed=0)))
    fitting = [name for name, base in BUNDLED.items() if russian and base.language == "ru"]
    if not fitting:
        return recipe.replace(model__base=None)
    reads = read_shape(bundled_folder(fitting[0]), dropout=0.0).max_positions
    if recipe.text.max_length > reads:
        say(f"from scratch, since {fitting[0]} reads {reads} tokens and text.max_length is more")
        return recipe.replace(model__base=None)
    say(f"base {fitting[0]}, since the texts are in Russian letters; --base none: from scratch")
    return recipe.replace(model__base=fitting[0])


def build_model(recipe: Recipe, setup: Setup, say: Say) -> SequenceClassifier:
    """The model before its first step."""
    torch.manual_seed(recipe.train.seed)
    classes, shape = len(setup.classes), recipe.model
    if setup.base is not None:
        loaded = load_classifier(setup.base, classes, shape.dropout, shape.ngrams)
        new = [name for name in loaded.new if name.endswith("weight")]
        say(f"base {shape.base}: starts anew: {', '.join(new) or 'nothing'}")
        if loaded.unused:
            say(f"base {shape.base}: {len(loaded.unused)} weights of other heads are not used")
        check_vocabulary(setup.encoder.vocab_size, loaded.model.config, setup.base)
        spell(loaded.model, setup.encoder.tokenizer)
        return loaded.model
    config = shape_of(recipe, setup.encoder.vocab_size)
    model = SequenceClassifier(config, classes)
    spell(model, setup.encoder.tokenizer)
    if shape.words == "cooccurrence":
        embeddings, rows = model.encoder.embeddings, setup.rows(TRAIN)
        start_words(embeddings, setup.encoder, setup.store, rows, say)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(f"model {shape.size} from scratch: {parameters / 1e6:.1f}M parameters")
    return model


def origins(recipe: Recipe, base: Path | None) -> list[Path]:
    """The folders of the models that a run starts or learns from."""
    teachers = [model_folder(one) for one in recipe.objective.teachers if one != BASELINE]
    return [*([] if base is None else [base]), *teachers]


def split_note(dataset: Dataset | None, models: list[Path]) -> dict[str, Any]:
    """What a run's data.json says of the rows that it has learned from, and that the models it
    started or learned from had learned from before (see check_splits)."""
    note: dict[str, Any] = {}
    if dataset is not None:
        note["split"] = {"files": dataset.files, "fingerprint": dataset.fingerprint}
    former = [split for model in models for split in _splits(model)]
    return note | ({"former_splits": former} if former else {})


def _splits(model: Path) -> list[dict[str, Any]]:
    """The splits of rows that a model's run has noted."""
    if not (model.parent / DATA).is_file():
        return []
    noted = read_json(model.parent / DATA)
    return [*([noted["split"]] if "split" in noted else []), *noted.get("former_splits", [])]


def check_splits(models: list[Path], dataset: Dataset) -> None:
    """UserError when the run that a model is of, or one before it, has split the same rows
    otherwise: it may have learned from those that are to be tested on now."""
    for model, split in [(one, split) for one in models for split in _splits(one)]:
        if set(split["files"]) & set(dataset.files) and split["fingerprint"] != dataset.fingerprint:
            raise UserError(
                f"{model} has learned from these rows as another split: rows to test on may be "
                "among them. Give the data settings and the train.seed of that run, or another "
                "model."
            )


def check_vocabulary(tokens: int, config: EncoderConfig, base: Path) -> None:
    """UserError when a base's tokenizer has more tokens than its model knows."""
    if tokens > config.vocab_size:
        raise UserError(
            f"The tokenizer of {base} has {tokens} tokens, but its model knows {config.vocab_size}."
        )


def shape_of(recipe: Recipe, vocab_size: int) -> EncoderConfig:
    """The shape of an encoder from scratch."""
    shape = recipe.model
    changes = {
        name: value
        for name in ("hidden_size", "layers", "heads", "intermediate_size")
        if (value := getattr(shape, name)) is not None
    }
    return named_config(
        shape.size,
        vocab_size=vocab_size,
        max_positions=recipe.text.max_length,
        dropout=shape.dropout,
        attention_dropout=shape.dropout,
        ngrams=shape.ngrams,
        **changes,
    )


def logits_of(model: SequenceClassifier, setup: Setup, part: int) -> np.ndarray:
    """Logits [N, C] of the rows of a part."""
    rows, store = setup.rows(part), setup.store
    device = next(model.parameters()).device
    return score(model, store.lengths[rows], lambda of: store.batch(rows[of]), device)


def note_data(note: Path, fingerprint: str, decisions: Sequence[Decision], **more: object) -> None:
    """Write down what the data of a run are, and what was decided on them; see check_unchanged."""
    told = [asdict(decision) for decision in decisions]
    content = {"fingerprint": fingerprint, "decisions": told, **more}
    write_durably(note, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def check_unchanged(fingerprint: str, noted: Path) -> None:
    """UserError when the data are not those that a run noted when it began."""
    if noted.is_file() and read_json(noted)["fingerprint"] != fingerprint:
        raise UserError(
            "The data are not those that this run began with: files or data settings have changed."
        )


@dataclass(frozen=True)
class _Texts:
    """Texts that can be gone through more than once, without being held in memory."""

    dataset: Dataset
    rows: np.ndarray

    def __iter__(self) -> Iterator[str]:
        for batch in self.dataset.text_batches(self.rows):
            yield from batch


def _token_decisions(dataset: Dataset, encoder: TextEncoder, store: TokenStore) -> list[Decision]:
    decisions = []
    used = np.concatenate([dataset.part(part) for part in (TRAIN, VALIDATION, TEST)])
    cut, lost = int((store.lost[used] > 0).sum()), int(store.lost[used].sum())
    total = int(store.lengths[used].sum()) + lost
    said = (
        f"cut at {encoder.max_length} tokens: {cut:,} texts, {lost / total:.2%} of all tokens lost"
        if cut
        else f"no text is longer than {encoder.max_length} tokens"
    )
    decisions.append(Decision("cut", cut, said))
    fit = measure_fit(encoder, dataset.texts(sample(dataset.part(TRAIN), _FIT_SAMPLE, seed=0)))
    said = f"{fit.fertility:.2f} tokens a word, {fit.unknown_share:.2%} unknown"
    if not fit.suits:
        said += (
            "; WARNING: this vocabulary does not suit these texts, a base in their language will"
        )
    decisions.append(Decision("fertility", 0, said))
    return decisions
