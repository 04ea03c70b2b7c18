"""How a gate begins: from a run, whose rows it freezes and whose model is its first version."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from igla.gate.home import Home, Origin
from igla.gate.judge import average_precision
from igla.gate.material import Material, freeze, load_material
from igla.gate.versions import About
from igla.infer.classifier import Classifier, DecisionRule, model_folder
from igla.model.folder import read_json
from igla.sealed import write_durably
from igla.serve.models import content_version
from igla.serve.scoring import gathered
from igla.serve.tokens import windows_of


def begin(folder: Path, run: Path, block: int, *, guarded: bool = False) -> Home:
    """Make a gate of a run: freeze its rows, and let its model be the first version.

    block    number of the class that is to be blocked
    guarded  see block_logits

    A gate that has begun is left as it is. UserError when the run will not do.
    """
    home = Home(folder)
    if home.begun:
        return home
    folder.mkdir(parents=True, exist_ok=True)
    model = model_folder(run).resolve()
    classifier = Classifier.load(model)
    freeze(
        home.rows, run if model.name == "model" else model.parent, classifier.rule.classes, block
    )
    material = load_material(home.rows)
    figures = first_figures(classifier, material, block, guarded)

    def write(making: Path) -> None:
        classifier.save(making, read_json(model / "config.json"), model)

    versions = home.versions
    versions.clean()
    begun_with = Origin(str(run), content_version(model))
    write_durably(home.origin, json.dumps(asdict(begun_with), ensure_ascii=False) + "\n")
    about = About(None, 0, time.time(), True, f"the model of {run}", figures)
    versions.promote(versions.add(write, about), "begin")
    return home


def block_cut(rule: DecisionRule, block: int) -> float:
    """The least probability of block from which a version blocks."""
    threshold = 0.5 if rule.threshold is None else rule.threshold
    assert isinstance(threshold, float)
    return threshold if block == 1 else 1 - threshold


def first_figures(
    classifier: Classifier, material: Material, block: int, guarded: bool
) -> dict[str, object]:
    """PR-AUC on the holdout, and the false-positive rate on the calibration rows that the versions
    to come are held to."""
    holdout, calibration = material.holdout, material.calibration
    given = block_scores(classifier, holdout.texts, block, guarded=guarded)
    [area] = average_precision(holdout.targets == 0, given, np.ones((1, len(holdout))))
    scores = block_scores(classifier, calibration.texts, block, guarded=guarded)
    allowed = scores[calibration.targets == 1]
    rate = float((allowed >= block_cut(classifier.rule, block)).mean()) if len(allowed) else 0.0
    return {"holdout": {"after": float(area)}, "false_positive_rate": rate}


def block_scores(
    classifier: Classifier, texts: Sequence[str], block: int, *, guarded: bool = False
) -> np.ndarray:
    """[N] probability of block of each text, as decisions are made by it; see block_logits."""
    logits = block_logits(classifier, texts, block, guarded=guarded)
    return classifier.rule.probabilities(logits)[:, block]


def block_logits(
    classifier: Classifier, texts: Sequence[str], block: int, *, guarded: bool = False
) -> np.ndarray:
    """[N, 2] logits of texts as the server reads them: of several windows, those of the gravest.

    guarded  whether the server has a text's reading by text.guard scored as well
    """
    cut = windows_of(classifier.encoder, texts, truncate=False, guarded=guarded)
    return gathered(classifier.rule, cut, classifier.logits_of(cut.sequences), block).logits
