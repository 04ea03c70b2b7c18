"""The optimizer of a recipe, connected with its model."""

from functools import partial
from typing import Any

from torch.optim import Optimizer

from igla.model.decoder.decoder import Decoder
from igla.model.decoder.decoder import layer_of as layer_of_decoder
from igla.model.encoder import SequenceClassifier, layer_of
from igla.model.parts import Embedding
from igla.optim import AdamW, build_optimizer
from igla.recipe import AdaptRecipe, OptimRecipe
from igla.train.adapting import rates


def make_optimizer(
    optim: OptimRecipe, model: Any, adapt: AdaptRecipe | None = None, *, all_rows: bool = False
) -> Optimizer:
    """The optimizer of a resolved recipe.

    all_rows  a penalty gives every row of a table a gradient in every step

    Where it can, it updates the tables of words and n-grams row by row; not then, nor beside a
    moving average, which wants all rows in every step, nor where the words' rows are also what is
    guessed.
    """
    assert optim.learning_rate != "auto"
    is_decoder = isinstance(model, Decoder)
    optimizer = build_optimizer(
        optim.optimizer,
        model,
        learning_rate=optim.learning_rate,
        weight_decay=optim.weight_decay,
        betas=optim.betas,
        epsilon=optim.epsilon,
        momentum=optim.momentum,
        layer_decay=optim.layer_decay,
        layer_of=partial(layer_of_decoder if is_decoder else layer_of, model.config),
        rate_of=rates(adapt),
    )
    if isinstance(optimizer, AdamW) and not optim.ema and not all_rows:
        for table in (one for one in _tables(model) if one.weight.requires_grad):
            table.before_reading = optimizer.by_rows(table.weight)
    return optimizer


def _tables(model: Any) -> list[Embedding]:
    """Those of whose rows a step reads few, and writes no others."""
    if isinstance(model, Decoder):
        return [] if model.config.tied else [model.words]
    embeddings = model.encoder.embeddings
    tables = [embeddings.word] if isinstance(model, SequenceClassifier) else []
    if embeddings.ngrams is not None:
        tables.append(embeddings.ngrams.table)
    return tables
