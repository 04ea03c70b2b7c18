"""Elastic weight consolidation in training: a base keeps what the texts of an old task need."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from igla.data.corpus import load_corpus
from igla.data.rows import sample
from igla.data.split import TRAIN
from igla.data.windows import open_windows
from igla.errors import UserError
from igla.objective import Objective
from igla.objective.ewc import anchored
from igla.recipe import Recipe
from igla.text.tokenizer import TextEncoder
from igla.train.pretext import PRETEXTS
from igla.train.setup import check_unchanged, note_data
from igla.train.task import Say
from igla.train.vocabulary import TOKENIZER

# In the run folder: what the texts of the old task were.
CONSOLIDATION = "consolidation.json"


def consolidated(
    plain: Objective, recipe: Recipe, encoder: TextEncoder, model: Any, folder: Path, say: Say
) -> Objective:
    """The objective of the run in a folder, with the penalty that its recipe asks for.

    model  with the weights that training starts from, on the device where it is trained

    The texts are those of a pretext task; where conversations are learned, each next word is their
    task. Documents that a pretraining on them would keep to validate on are left out, so that what
    is forgotten can be measured on them. A run that goes on does the same again, on the same
    windows from the same weights, and so gets the same numbers. UserError when the texts are not
    those that it began with.
    """
    asked = recipe.objective
    if not asked.ewc:
        return plain
    sources = {f"old {number}": where for number, where in enumerate(asked.ewc_corpus, start=1)}
    reading = {"sources": sources, "shares": {}, "validation": None}
    corpus = load_corpus(recipe.corpus.model_copy(update=reading), recipe.train.seed)
    check_unchanged(corpus.fingerprint, folder / CONSOLIDATION)
    for decision in corpus.decisions:
        say(decision.said)
    note_data(folder / CONSOLIDATION, corpus.fingerprint, corpus.decisions)
    pretext = PRETEXTS["causal_lm" if asked.task == "sft" else asked.task]
    windows = open_windows(corpus, encoder, pretext.cut(encoder, folder / TOKENIZER))
    old = np.flatnonzero(windows.parts == TRAIN)
    if not len(old):
        raise UserError("objective.ewc_corpus has too few documents.")
    rows = sample(old, asked.ewc_rows, recipe.train.seed)
    held = sum(one.numel() for one in model.parameters() if one.requires_grad)
    say(f"ewc: {held:,} weights are held by {len(rows):,} of {len(old):,} windows")
    device = next(model.parameters()).device
    torch.manual_seed(recipe.train.seed)  # the same words are hidden
    examples = (windows.store.batch(np.array([row])).to(device) for row in rows)
    return anchored(plain, model, pretext.objective(recipe, encoder), examples, asked.ewc)
