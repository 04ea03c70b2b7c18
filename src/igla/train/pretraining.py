"""The task of learning from texts without labels."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igla.data.corpus import Corpus, load_corpus
from igla.data.dataset import Dataset, load_dataset
from igla.data.rows import in_turns
from igla.data.split import TRAIN, VALIDATION
from igla.data.store import TokenStore
from igla.data.windows import SHORTEST, Windows, open_windows
from igla.errors import UserError
from igla.model.folder import read_shape
from igla.model.hub import base_folder
from igla.objective import Objective
from igla.recipe import DataRecipe, Recipe
from igla.sealed import write_durably, write_sealed
from igla.text.tokenizer import TextEncoder, load_tokenizer, save_tokenizer
from igla.train.finish import METRICS, MODEL
from igla.train.log import read_records
from igla.train.pretext import PRETEXTS, Pretext, teacher_folder
from igla.train.setup import (
    DATA,
    check_splits,
    check_unchanged,
    note_data,
    origins,
    split_note,
)
from igla.train.start import Start
from igla.train.state import load_weights
from igla.train.task import Ended, Evaluation, Say, Sources
from igla.train.throughput import Throughput
from igla.train.vocabulary import TOKENIZER, open_tokenizer

# Windows, and tokens in them, that a validation reads at most, and how many of each at once.
_VALIDATED, _AT_ONCE = 2048, 64
_VALIDATED_TOKENS, _TOKENS_AT_ONCE = 1 << 18, 1 << 14
_DECODED = 10_000


@dataclass(frozen=True)
class Pretraining:
    """See task.Task."""

    encoder: TextEncoder
    windows: Windows
    names: tuple[str, ...]
    rows: np.ndarray
    validation: np.ndarray
    base: Path | None
    pretext: Pretext
    learned: Objective
    best_by = "validation_loss"

    @classmethod
    def open(cls, recipe: Recipe, folder: Path, say: Say) -> "Pretraining":
        # What may be wrong with other models is told before texts are read, which may take long.
        base = None if recipe.model.base is None else base_folder(recipe.model.base)
        models, tokenizer = origins(recipe, base), _tokenizer_source(recipe, base)
        seed = recipe.train.seed
        labelled = None if recipe.data.source is None else _labelled(recipe.data, seed)
        corpus = load_corpus(recipe.corpus, seed, labelled)
        check_unchanged(corpus.fingerprint, folder / DATA)
        decisions = (*(() if labelled is None else labelled.decisions), *corpus.decisions)
        for decision in decisions:
            say(decision.said)
        if labelled is not None:
            check_splits(models, labelled)
        encoder = open_tokenizer(recipe, _Texts(corpus), tokenizer, folder, say)
        pretext = PRETEXTS[recipe.objective.task]
        windows = open_windows(corpus, encoder, pretext.cut(encoder, folder / TOKENIZER))
        note_data(folder / DATA, corpus.fingerprint, decisions, **split_note(labelled, models))
        rows, validation = (np.flatnonzero(windows.parts == part) for part in (TRAIN, VALIDATION))
        if not len(rows) or not len(validation):
            raise UserError("The corpus has too few documents to train and to validate on.")
        tokens = int(windows.store.lengths[rows].sum())
        say(f"{len(rows):,} windows of {tokens:,} tokens to learn from")
        if windows.short:
            say(f"left out: {windows.short:,} documents of fewer than {SHORTEST} tokens")
        chosen = np.random.default_rng(0).permutation(validation)[:_VALIDATED]
        read = windows.store.lengths[chosen].cumsum()
        chosen = chosen[: max(1, np.searchsorted(read, _VALIDATED_TOKENS, "right"))]
        learned = pretext.objective(recipe, encoder)
        return cls(encoder, windows, corpus.names, rows, chosen, base, pretext, learned)

    @property
    def store(self) -> TokenStore:
        return self.windows.store

    @property
    def sources(self) -> Sources:
        return Sources(self.names, self.windows.sources[self.rows])

    def settled(self, recipe: Recipe) -> Recipe:
        return recipe

    def shown(self, recipe: Recipe) -> None:
        return None

    def texts(self) -> list[str]:
        decode, store = self.encoder.tokenizer.decode_batch, self.store
        texts: list[str] = []
        for rows in np.array_split(self.rows, -(-len(self.rows) // _DECODED)):
            texts += decode([ids.tolist() for ids in store.sequences(rows)])
        return texts

    def losses(self, judge: Path) -> np.ndarray:
        raise AssertionError("refused by applicable.check_applicable")

    def shrunk(self, rows: int) -> "Pretraining":
        chosen = in_turns(self.sources.of_rows)[:rows]
        return replace(self, rows=self.rows[chosen], validation=self.validation[:rows])

    def build_model(self, recipe: Recipe, say: Say) -> Any:
        torch.manual_seed(recipe.train.seed)
        start = Start(self.encoder, self.store, self.rows, self.base)
        model = self.pretext.build(recipe, start, say)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        say(f"model {recipe.model.base or recipe.model.size}: {parameters / 1e6:.1f}M parameters")
        return model

    def objective(self, recipe: Recipe) -> Objective:
        return self.learned

    def evaluate(self, model: Any) -> Evaluation:
        device = next(model.parameters()).device
        order = self.validation[np.argsort(self.store.lengths[self.validation], kind="stable")]
        model.train(self.pretext.by_dropout)
        torch.default_generator.manual_seed(0)  # the same words are hidden in each validation
        if device.type == "cuda":
            torch.cuda.manual_seed(0)
        sums: defaultdict[str, float] = defaultdict(float)
        with torch.no_grad():
            at_once = max(1, min(_AT_ONCE, _TOKENS_AT_ONCE // self.encoder.max_length))
            for start in range(0, len(order), at_once):
                batch = self.store.batch(order[start : start + at_once]).to(device)
                loss = self.learned.loss(model, batch)
                sums["loss"] += loss.sum.item()
                sums["count"] += loss.count.item()
                for name, value in loss.parts.items():
                    sums[name] += value.item()
        model.train()
        count = sums.pop("count")
        if not count:
            raise UserError("There is nothing to guess: the tokenizer knows no word of the texts.")
        figures = {
            "validation_loss" if name == "loss" else name: value / count
            for name, value in sums.items()
        }
        figures = self.pretext.figures(figures)
        said = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
        return Evaluation(figures, said)

    def finish(self, ended: Ended, say: Say) -> None:
        load_weights(ended.model, ended.version, averaged=ended.recipe.optim.ema > 0)
        model: Any = ended.model

        def write(folder: Path) -> None:
            if ended.adapted is not None:
                ended.adapted.save(folder, model)
            else:
                self.pretext.save(folder, model, self.encoder, ended.folder / TOKENIZER, self.base)
            save_tokenizer(folder, self.encoder, ended.folder / TOKENIZER)

        write_sealed(ended.folder / MODEL, write)
        records = read_records(ended.folder)
        best = next(
            one for one in records if one["kind"] == "evaluation" and one["step"] == ended.step
        )
        content = {"training": Throughput.of(records).as_json(), "best": best}
        text = json.dumps(content, ensure_ascii=False, indent=1)
        write_durably(ended.folder / METRICS, text + "\n")
        say(f"model:  {ended.folder / MODEL}")


def _labelled(recipe: DataRecipe, seed: int) -> Dataset:
    try:
        return load_dataset(recipe, seed)
    except UserError as error:
        raise UserError(f"{error} (Texts without labels are named by --corpus.)") from None


def _tokenizer_source(recipe: Recipe, base: Path | None) -> Path | None:
    """The folder whose tokenizer is used: the base's, unless its body moves to a new one; of
    distill the teacher's, whose tokens the student has to read. UserError where the base cannot
    read what that makes of the texts."""
    source = base if recipe.text.vocabulary == "base" else None
    if recipe.objective.task == "distill":
        source = teacher_folder(recipe)
    if base is None or source == base:
        return source
    reads = read_shape(base, dropout=0.0).max_positions
    if recipe.text.max_length > reads:
        raise UserError(f"The base reads {reads} tokens: lower text.max_length.")
    if source is not None:
        one, other = (load_tokenizer(folder).get_vocab() for folder in (base, source))
        if one != other:
            raise UserError(f"{base} and the teacher {source} have different vocabularies.")
    return source


@dataclass(frozen=True)
class _Texts:
    """Texts to train on, which can be gone through more than once."""

    corpus: Corpus

    def __iter__(self) -> Iterator[str]:
        return self.corpus.texts(TRAIN)
