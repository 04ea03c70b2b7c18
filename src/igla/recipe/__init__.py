"""The recipe: what a run does, complete, typed and frozen.

It is the one source of defaults. A recipe is read from YAML, changed by `key=value` arguments, and
written, resolved, into the run folder, from which `igla train FOLDER/recipe.yaml` repeats the run.
A value of `auto` is decided from the data or the machine when the run starts, and the decision is
written in its place.
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from igla.errors import UserError
from igla.recipe.sections import (
    AUTO_BASE,
    BASELINE,
    AdaptRecipe,
    CorpusRecipe,
    Count,
    CurriculumRecipe,
    DataRecipe,
    ModelRecipe,
    ObjectiveRecipe,
    OptimRecipe,
    Positive,
    Section,
    Share,
    TextRecipe,
    TrainRecipe,
)

__all__ = [
    "AUTO_BASE",
    "BASELINE",
    "DECODER_TASKS",
    "TASK_DEFAULTS",
    "AdaptRecipe",
    "CorpusRecipe",
    "Count",
    "CurriculumRecipe",
    "DataRecipe",
    "ModelRecipe",
    "ObjectiveRecipe",
    "OptimRecipe",
    "Positive",
    "Recipe",
    "Section",
    "Share",
    "TextRecipe",
    "TrainRecipe",
    "defaults_of",
    "field_names",
    "load_recipe",
    "read_yaml",
]

# Defaults of tasks that differ from the fields' own, filled in where a recipe says nothing.
_DECODER: dict[str, dict[str, Any]] = {
    "text": {"tokenizer": "byte_bpe", "lowercase": False, "max_length": 512},
    "model": {"size": "igla-5m", "dropout": 0.0},
    "optim": {"weight_decay": 0.1, "betas": (0.9, 0.95)},
    "train": {"batch_tokens": 8192},
}
TASK_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "causal_lm": _DECODER,
    "sft": _DECODER,
    "wedlm": _DECODER | {"optim": _DECODER["optim"] | {"learning_rate": 5e-4}},
}
# Tasks that train a decoder.
DECODER_TASKS = frozenset(TASK_DEFAULTS)
# What shapes a model from scratch: who names one of these otherwise wants no base.
_SHAPE = {
    "model": ("size", "hidden_size", "layers", "heads", "intermediate_size", "words"),
    "text": ("tokenizer", "vocab_size", "lowercase"),
}


class Recipe(Section):
    """Everything a run depends on."""

    data: DataRecipe = DataRecipe()
    corpus: CorpusRecipe = CorpusRecipe()
    curriculum: CurriculumRecipe = CurriculumRecipe()
    text: TextRecipe = TextRecipe()
    model: ModelRecipe = ModelRecipe()
    objective: ObjectiveRecipe = ObjectiveRecipe()
    optim: OptimRecipe = OptimRecipe()
    adapt: AdaptRecipe = AdaptRecipe()
    train: TrainRecipe = TrainRecipe()

    @model_validator(mode="before")
    @classmethod
    def _of_task(cls, content: Any) -> Any:
        """The task's own defaults, where the recipe says nothing."""
        asked = content.get("objective") if isinstance(content, dict) else None
        task = asked.get("task") if isinstance(asked, dict) else None
        filled = dict(content) if task in TASK_DEFAULTS else content
        for section, fields in TASK_DEFAULTS.get(task or "", {}).items():
            given = filled.get(section, {})
            if isinstance(given, dict):
                filled[section] = fields | given
        return filled

    @model_validator(mode="after")
    def _without_base(self) -> "Recipe":
        """No base is chosen for a task that is not classify, or beside a shape from scratch."""
        if self.model.base == AUTO_BASE:
            shaped = self.model.differs(_SHAPE["model"]) or self.text.differs(_SHAPE["text"])
            if shaped or self.objective.task != "classify":
                # The recipe is frozen for others, not for its own making.
                object.__setattr__(self, "model", self.model.model_copy(update={"base": None}))
        return self

    def replace(self, **changes: Any) -> "Recipe":
        """A recipe with the fields named `section__field` changed, validated anew."""
        content = self.model_dump()
        for name, value in changes.items():
            section, field = name.split("__")
            content[section][field] = value
        return _validated(content, "recipe")

    def to_yaml(self, *, documented: bool = False) -> str:
        """The recipe as YAML; `documented` puts each field's description above it."""
        lines = []
        for name, section in self:
            lines.append(f"{name}:")
            for field, value in section.model_dump(mode="json").items():
                if documented:
                    lines.append(f"  # {type(section).model_fields[field].description}")
                lines.append(f"  {field}: {_inline(value)}")
        return "\n".join(lines) + "\n"


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """The defaults, changed by a YAML file and then by `section.field=value` arguments.

    Raises UserError for a file that is not there or not YAML, for an unknown key (naming the
    nearest valid one) and for a value that does not fit.
    """
    content = {} if path is None else _read_recipe(path)
    where = "recipe" if path is None else str(path)
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign:
            raise UserError(f"'{override}' is not of the form section.field=value.")
        section, _, field = key.partition(".")
        content.setdefault(section, {})
        if not field or not isinstance(content[section], dict):
            raise UserError(f"'{key}' names no field: write section.field, as train.epochs=3.")
        content[section][field] = _argument_value(value)
    return _validated(content, where)


def defaults_of(task: str) -> Recipe:
    """The recipe of a task that says nothing else."""
    return Recipe.model_validate({"objective": {"task": task}})


def field_names() -> Iterator[str]:
    """All fields as `section.field`."""
    for name, section in Recipe():
        yield from (f"{name}.{field}" for field in type(section).model_fields)


def _validated(content: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_mistake(error)}") from None


def _first_mistake(error: ValidationError) -> str:
    mistake = error.errors()[0]
    # The location goes on into the branches of a union, which say nothing to a user.
    key = ".".join(str(part) for part in mistake["loc"][:2])
    if mistake["type"] == "extra_forbidden":
        names = list(field_names()) if "." in key else list(Recipe.model_fields)
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}."
        return f"unknown key '{key}'; {hint}"
    message = mistake["msg"].replace("Input should", "should")
    return f"{key} {message}, but is {mistake['input']!r}."


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; UserError when it cannot be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None


def _read_recipe(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"There is no recipe {path}; `igla recipe init {path}` writes one.")
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no recipe: its top level must be sections such as train:.")
    # An empty section (`train:` with all its lines commented out) stands for its defaults.
    return {section: fields if fields is not None else {} for section, fields in content.items()}


def _argument_value(text: str) -> Any:
    # Not all of YAML: a file may be called «a: b.csv», and a column «no».
    if text == "null":
        return None
    if text.startswith(("[", "{")):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def _inline(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str) and not value.isprintable():
        # YAML would fold line breaks that are not escaped.
        return yaml.safe_dump(value, default_style='"', width=10**6).removesuffix("\n")
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
