"""Which settings a task knows: one that it would pass over in silence is refused."""

from igla.errors import UserError
from igla.recipe import (
    BASELINE,
    DECODER_TASKS,
    AdaptRecipe,
    CorpusRecipe,
    CurriculumRecipe,
    Recipe,
    TrainRecipe,
    defaults_of,
    field_names,
)

_OF_CLASSIFY = {
    "text.evasion",
    "objective.loss",
    "objective.class_weights",
    "objective.label_smoothing",
    "objective.focal_gamma",
    "objective.word_dropout",
    "objective.r_drop",
    "objective.mixup",
    "objective.adversary",
    "objective.adversary_reach",
    "objective.teacher_weight",
    "objective.teacher_temperature",
}
_MASKED = {"masked_lm", "replaced_token"}
_CONSOLIDATED = {"causal_lm", "masked_lm", "sft"}
_ENCODERS_OF_TEXTS = _MASKED | {"contrastive", "distill"}
_TEXTS = _ENCODERS_OF_TEXTS | DECODER_TASKS - {"sft"}
_ENCODERS = {"classify"} | _ENCODERS_OF_TEXTS
_NOT_SFT = {"classify"} | _TEXTS
_OF_MIXERS = ("model.mixers", "model.sliding_window")
_OF_EXPERTS = (
    "model.experts",
    "model.experts_per_token",
    "model.shared_experts",
    "model.expert_weights",
    "objective.balance",
    "objective.router_z",
    "objective.balance_bias",
    "objective.expert_capacity",
)
# What a base settles.
_SHAPE = tuple(
    f"model.{name}"
    for name in ("size", "hidden_size", "layers", "heads", "kv_heads", "intermediate_size")
)
_TOKENIZER = ("text.tokenizer", "text.vocab_size", "text.lowercase")
# Settings that not every task knows, and the tasks that do.
TASKS: dict[str, set[str]] = {
    **{name: {"classify"} for name in _OF_CLASSIFY},
    "objective.teachers": {"classify", "distill"},
    "objective.mask_share": _MASKED,
    "objective.mask_unit": _MASKED,
    "objective.temperature": {"contrastive"},
    **{f"objective.{name}": _CONSOLIDATED for name in ("ewc", "ewc_corpus", "ewc_rows")},
    "text.vocabulary": _MASKED | {"contrastive"},
    "data.weight_column": {"classify"},
    **{f"data.{name}": {"sft", "wedlm"} for name in ("prompt_column", "completion_column")},
    **{f"data.{name}": _NOT_SFT for name in ("text_column", "label_columns", "test")},
    **{f"corpus.{name}": _TEXTS for name in CorpusRecipe.model_fields},
    "text.guard": _ENCODERS,
    "text.latin": _ENCODERS,
    "model.words": _ENCODERS,
    "model.ngrams": _ENCODERS,
    "model.dropout": _ENCODERS,
    "model.kv_heads": {"causal_lm"},
    **{f"adapt.{name}": {"classify", "causal_lm", "sft"} for name in AdaptRecipe.model_fields},
    **{name: {"causal_lm"} for name in _OF_MIXERS},
    **{name: {"causal_lm", "sft"} for name in _OF_EXPERTS},
}


def check_applicable(recipe: Recipe) -> None:
    """UserError for a setting that is not at its default and that the recipe's task, or another
    setting, leaves without effect."""
    task, plain = recipe.objective.task, defaults_of(recipe.objective.task)
    for name in field_names():
        if _value(recipe, name) == _value(plain, name) or task in TASKS.get(name, {task}):
            continue
        raise UserError(f"{name} does nothing for objective.task={task}.")
    _check_classifying(recipe)
    _check_pretext(recipe)
    _check_words(recipe)
    _check_consolidation(recipe)
    _check_corpus(recipe)
    if (task in DECODER_TASKS) != (recipe.text.tokenizer == "byte_bpe"):
        raise UserError(
            f"text.tokenizer={recipe.text.tokenizer} does not go with objective.task={task}: "
            "decoders read bytes (byte_bpe), and encoders words."
        )
    if task == "wedlm" and recipe.model.base is None:
        raise UserError("objective.task=wedlm goes on from a decoder: name it by --base.")
    if ("window" in recipe.model.mixers) != (recipe.model.sliding_window is not None):
        raise UserError("model.sliding_window goes with a window among model.mixers.")
    if recipe.text.latin != "keep" and not recipe.text.guard:
        raise UserError("text.latin does nothing without text.guard=true.")
    if recipe.model.ngrams and recipe.text.tokenizer != "wordpiece":
        raise UserError("model.ngrams asks for text.tokenizer=wordpiece.")
    if recipe.adapt.method == "none" and recipe.adapt != AdaptRecipe():
        raise UserError("The settings of adapt do nothing without adapt.method.")
    curriculum = recipe.curriculum
    if curriculum.judge is not None and curriculum.by != "loss":
        raise UserError("curriculum.judge does nothing without curriculum.by=loss.")
    if curriculum.by == "loss" and task != "classify":
        raise UserError("curriculum.by=loss judges labelled rows, which only classify has.")
    if curriculum.by == "loss" and curriculum.judge is None:
        raise UserError("curriculum.by=loss asks for a classifier: name curriculum.judge.")
    if curriculum.by == "none" and curriculum != CurriculumRecipe():
        raise UserError("The settings of curriculum do nothing without curriculum.by.")


def not_used(recipe: Recipe) -> list[str]:
    """Settings that are not at their defaults and of which the base, or of distill the teacher's
    tokenizer, leaves nothing to settle. A recipe from scratch may be continued on a base as it is,
    so that they are to be told and not refused."""
    base, task = recipe.model.base is not None, recipe.objective.task
    own_tokenizer = recipe.text.vocabulary == "base" and (base or task == "distill")
    names = [*(_SHAPE if base else ()), *(_TOKENIZER if own_tokenizer else ())]
    plain = defaults_of(task)
    return [name for name in names if _value(recipe, name) != _value(plain, name)]


def _check_classifying(recipe: Recipe) -> None:
    asked = recipe.objective
    for name, without, idle in (
        ("label_smoothing", "another objective.loss than focal", asked.loss == "focal"),
        ("focal_gamma", "objective.loss=focal", asked.loss != "focal"),
        ("teacher_weight", "objective.teachers", not asked.teachers),
        ("teacher_temperature", "objective.teachers", not asked.teachers),
        ("adversary_reach", "objective.adversary", asked.adversary == "none"),
    ):
        if idle and asked.differs((name,)):
            raise UserError(f"objective.{name} does nothing without {without}.")
    if asked.mixup and asked.r_drop:
        raise UserError("objective.mixup and objective.r_drop do not go together: choose one.")
    if asked.mixup and _one_at_a_time(recipe.train):
        raise UserError(
            "objective.mixup mixes texts that go through together, of which a batch of one text "
            "has none: raise train.batch_size, and train.micro_batch_size if it is given."
        )
    if asked.r_drop and not (recipe.model.dropout or asked.word_dropout):
        raise UserError(
            "objective.r_drop compares two passes by their dropout: model.dropout is 0."
        )


def _check_pretext(recipe: Recipe) -> None:
    asked, train = recipe.objective, recipe.train
    if asked.task == "distill" and (len(asked.teachers) != 1 or BASELINE in asked.teachers):
        raise UserError(
            "objective.task=distill asks for one teacher, an encoder: name objective.teachers."
        )
    if asked.task != "contrastive":
        return
    if not recipe.model.dropout:
        raise UserError(
            "objective.task=contrastive tells two passes by their dropout: model.dropout is 0."
        )
    if _one_at_a_time(train):
        raise UserError(
            "objective.task=contrastive finds a text among those that go through with it, which a "
            "batch of one text lacks: raise train.batch_size, and train.micro_batch_size if it is "
            "given."
        )


def _one_at_a_time(train: TrainRecipe) -> bool:
    """Whether no two texts go through the model together."""
    return train.micro_batch_size == 1 or (train.batch_tokens is None and train.batch_size == 1)


def _check_words(recipe: Recipe) -> None:
    words, base, new = recipe.model.words, recipe.model.base, recipe.text.vocabulary == "new"
    moved = words in ("pieces", "similar")
    if recipe.objective.task == "classify" and moved:
        raise UserError(f"model.words={words} is for pretraining on a base.")
    if base is None and new:
        raise UserError("text.vocabulary=new moves a base's body: name the base by --base.")
    if base is None and moved:
        raise UserError(f"model.words={words} asks for a base: name one by --base.")
    if new and not moved:
        raise UserError("text.vocabulary=new asks for model.words=pieces or model.words=similar.")
    if base is not None and not new and words != "random":
        raise UserError(
            f"model.words={words} does nothing on a base that keeps its vocabulary: "
            "set model.words=random, or text.vocabulary=new."
        )


def _check_consolidation(recipe: Recipe) -> None:
    asked = recipe.objective
    if not asked.ewc:
        if asked.differs(("ewc_corpus", "ewc_rows")):
            raise UserError("objective.ewc_corpus and ewc_rows do nothing without objective.ewc.")
        return
    if not asked.ewc_corpus:
        raise UserError("objective.ewc asks for texts of the old task: name objective.ewc_corpus.")
    if recipe.model.base is None:
        raise UserError("objective.ewc holds what a base has learned: name one by --base.")
    if recipe.text.vocabulary == "new":
        raise UserError(
            "objective.ewc holds a base's weights where they are, and text.vocabulary=new gives it "
            "other words: choose one."
        )


def _check_corpus(recipe: Recipe) -> None:
    corpus, train = recipe.corpus, recipe.train
    mixed = corpus.shares or corpus.temperature != 1
    if corpus.shares and corpus.temperature != 1:
        raise UserError("corpus.temperature does nothing beside corpus.shares: choose one.")
    sources = len(corpus.sources) + (recipe.data.source is not None)
    if mixed and train.batch_tokens is None and train.batch_size < sources:
        raise UserError(f"train.batch_size must be {sources} at least, for a row of each source.")


def _value(recipe: Recipe, name: str) -> object:
    section, _, field = name.partition(".")
    return getattr(getattr(recipe, section), field)
