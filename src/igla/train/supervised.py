"""The task of supervised fine-tuning: a decoder learns the assistant's turns of conversations."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igla.data.batch import PackedBatch
from igla.data.conversations import Conversations, load_conversations
from igla.data.split import TRAIN, VALIDATION
from igla.data.store import TokenStore
from igla.errors import UserError
from igla.model.hub import base_folder
from igla.objective import Objective
from igla.objective.sft import Supervised
from igla.objective.wedlm import Wedlm
from igla.recipe import Recipe
from igla.sealed import write_durably, write_sealed
from igla.text.ending import end_of_text
from igla.text.template import CHATML, CHATML_TOKENS, TEMPLATE, ChatTemplate
from igla.text.tokenizer import TextEncoder, save_tokenizer
from igla.train.decoder_parts import routing_losses
from igla.train.decoder_start import (
    build_decoder,
    build_with_mask,
    write_decoder,
    write_with_mask,
)
from igla.train.finish import METRICS, MODEL
from igla.train.log import read_records
from igla.train.setup import DATA, check_unchanged, note_data
from igla.train.start import Start
from igla.train.state import load_weights
from igla.train.task import Ended, Evaluation, Say, Sources
from igla.train.throughput import Throughput
from igla.train.vocabulary import TOKENIZER, open_tokenizer

# Conversations that a validation reads at most, and tokens of them at once.
_VALIDATED, _TOKENS_AT_ONCE = 2048, 1 << 14


@dataclass(frozen=True)
class SupervisedTuning:
    """See task.Task."""

    encoder: TextEncoder
    template: ChatTemplate
    conversations: Conversations
    rows: np.ndarray
    validation: np.ndarray
    base: Path
    learned: Objective
    best_by = "validation_loss"

    @classmethod
    def open(cls, recipe: Recipe, folder: Path, say: Say) -> "SupervisedTuning":
        if recipe.model.base is None:
            task = recipe.objective.task
            raise UserError(f"objective.task={task} goes on from a decoder: name it by --base.")
        base = base_folder(recipe.model.base)
        encoder = open_tokenizer(recipe, (), base, folder, say)
        template = _template(base, encoder, say)
        found = load_conversations(recipe.data, recipe.train.seed, template, encoder)
        check_unchanged(found.fingerprint, folder / DATA)
        for decision in found.decisions:
            say(decision.said)
        note_data(folder / DATA, found.fingerprint, found.decisions)
        rows, validation = (np.flatnonzero(found.parts == part) for part in (TRAIN, VALIDATION))
        if not len(rows) or not len(validation):
            raise UserError(
                f"{len(rows)} conversations to train on and {len(validation)} to validate on are "
                "too few: give more, or another data.validation_share."
            )
        chosen = np.random.default_rng(0).permutation(validation)[:_VALIDATED]
        fills = recipe.objective.task == "wedlm"
        learned = Wedlm(encoder.mask_token_id) if fills else Supervised()
        return cls(encoder, template, found, rows, chosen, base, learned)

    @property
    def store(self) -> TokenStore:
        return self.conversations.store

    @property
    def sources(self) -> Sources:
        return Sources(("data",), np.zeros(len(self.rows), dtype=np.int64))

    def settled(self, recipe: Recipe) -> Recipe:
        return recipe

    def shown(self, recipe: Recipe) -> Callable[[np.ndarray, int], PackedBatch]:
        return lambda rows, step: self.conversations.batch(rows)

    def texts(self) -> list[str]:
        ids = [one.tolist() for one in self.store.sequences(self.rows)]
        return self.encoder.tokenizer.decode_batch(ids)

    def losses(self, judge: Path) -> np.ndarray:
        raise AssertionError("refused by applicable.check_applicable")

    def shrunk(self, rows: int) -> "SupervisedTuning":
        return replace(self, rows=self.rows[:rows], validation=self.validation[:rows])

    def build_model(self, recipe: Recipe, say: Say) -> Any:
        torch.manual_seed(recipe.train.seed)
        start = Start(self.encoder, self.store, self.rows, self.base)
        build = build_with_mask if isinstance(self.learned, Wedlm) else build_decoder
        model = build(recipe, start, say)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        say(f"base {recipe.model.base}: {parameters / 1e6:.1f}M parameters")
        return model

    def objective(self, recipe: Recipe) -> Objective:
        fills = isinstance(self.learned, Wedlm)
        return self.learned if fills else Supervised(routing_losses(recipe))

    def evaluate(self, model: Any) -> Evaluation:
        device = next(model.parameters()).device
        lengths = self.store.lengths[self.validation]
        order = self.validation[np.argsort(lengths, kind="stable")]
        cuts = np.flatnonzero(np.diff(self.store.lengths[order].cumsum() // _TOKENS_AT_ONCE)) + 1
        total = count = 0.0
        model.eval()
        torch.manual_seed(0)  # the same words are hidden in each validation
        with torch.no_grad():
            for rows in np.split(order, cuts):
                loss = self.learned.loss(model, self.conversations.batch(rows).to(device))
                total += loss.sum.item()
                count += loss.count.item()
        model.train()
        mean = total / count
        return Evaluation({self.best_by: mean}, f"validation loss {mean:.4f}")

    def finish(self, ended: Ended, say: Say) -> None:
        load_weights(ended.model, ended.version, averaged=ended.recipe.optim.ema > 0)
        tokenizer = ended.folder / TOKENIZER

        def write_all(folder: Path) -> None:
            if ended.adapted is None:
                write = write_with_mask if isinstance(self.learned, Wedlm) else write_decoder
                write(folder, ended.model, self.encoder, tokenizer, self.base)
            else:
                ended.adapted.save(folder, ended.model)
            save_tokenizer(folder, self.encoder, tokenizer)
            (folder / TEMPLATE).write_text(self.template.source, encoding="utf-8")
            ends = {"eos_token_id": self._ends(tokenizer)}
            text = json.dumps(ends) + "\n"
            (folder / "generation_config.json").write_text(text, encoding="utf-8")

        write_sealed(ended.folder / MODEL, write_all)
        records = read_records(ended.folder)
        best = next(
            one for one in records if one["kind"] == "evaluation" and one["step"] == ended.step
        )
        content = {"training": Throughput.of(records).as_json(), "best": best}
        text = json.dumps(content, ensure_ascii=False, indent=1)
        write_durably(ended.folder / METRICS, text + "\n")
        say(f"model:  {ended.folder / MODEL}")

    def _ends(self, tokenizer: Path) -> list[int]:
        """What ends a turn of the assistant, and a text."""
        ends = [*self.conversations.ends[:1], end_of_text(tokenizer, self.encoder.tokenizer)]
        return list(dict.fromkeys(ends))


def _template(base: Path, encoder: TextEncoder, say: Say) -> ChatTemplate:
    """The base's own, or ChatML for a vocabulary that has its marks."""
    found = ChatTemplate.of_folder(base)
    if found is not None:
        marks = "its own marks" if found.marks else "prefixes"
        say(f"chat template: the base's; the assistant's turns are found by {marks}")
        return found
    lacking = [one for one in CHATML_TOKENS if encoder.tokenizer.token_to_id(one) is None]
    if lacking:
        raise UserError(
            f"{base} has no chat template, and its vocabulary has no {lacking[0]} for ChatML: "
            f"put a {TEMPLATE} into it."
        )
    say("chat template: ChatML, since the base has none")
    return ChatTemplate(CHATML)
