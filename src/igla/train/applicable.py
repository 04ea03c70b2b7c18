"""Which settings a task knows: one that it would pass over in silence is refused."""

from igla.errors import UserError
from igla.recipe import DECODER_TASKS, AdaptRecipe, CorpusRecipe, Recipe, defaults_of, field_names

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
    **{f"corpus.{name}": _NOT_SFT for name in CorpusRecipe.model_fields},
    "corpus.shares": _TEXTS,
    "corpus.temperature": _TEXTS,
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
    asked, words = recipe.objective, recipe.model.words
    if asked.mixup and asked.r_drop:
        raise UserError("objective.mixup and objective.r_drop do not go together: choose one.")
    if asked.r_drop and not (recipe.model.dropout or asked.word_dropout):
        raise UserError(
            "objective.r_drop compares two passes by their dropout: model.dropout is 0."
        )
    _check_consolidation(recipe)
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
    if recipe.curriculum.judge is not None and recipe.curriculum.by != "loss":
        raise UserError("curriculum.judge does nothing without curriculum.by=loss.")
    if words != "random" and recipe.model.base is not None and recipe.text.vocabulary == "base":
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


def _value(recipe: Recipe, name: str) -> object:
    section, _, field = name.partition(".")
    return getattr(getattr(recipe, section), field)
