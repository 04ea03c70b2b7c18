"""The other models that a run learns with: a resumed run must find them as they were."""

import json
from pathlib import Path

from igla.adapt.base import digest_of
from igla.errors import UserError
from igla.infer.classifier import model_folder
from igla.model.folder import read_json
from igla.model.hub import base_folder
from igla.recipe import BASELINE, Recipe
from igla.sealed import write_durably

# In the run folder: the digest of each one's weights.
OTHERS = "others.json"


def note_others(recipe: Recipe, run: Path) -> None:
    """Note base, teachers and judge of a run that begins; UserError when one that a run began with
    has other weights now."""
    found = {}
    if recipe.model.base is not None:
        found[f"base {recipe.model.base}"] = digest_of(base_folder(recipe.model.base))
    for teacher in recipe.objective.teachers:
        if teacher != BASELINE:
            found[f"teacher {teacher}"] = digest_of(model_folder(teacher))
    if recipe.curriculum.judge is not None:
        found[f"judge {recipe.curriculum.judge}"] = digest_of(model_folder(recipe.curriculum.judge))
    file = run / OTHERS
    noted = read_json(file) if file.is_file() else found
    for name in sorted({*noted, *found}):
        if name not in noted:
            raise UserError(f"The run {run} began without the {name}: give it another folder.")
        if name not in found:
            raise UserError(f"The run {run} began with the {name}: give this one another folder.")
        if noted[name] != found[name]:
            raise UserError(
                f"The {name} is not the one that this run began with: its weights differ."
            )
    write_durably(file, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
