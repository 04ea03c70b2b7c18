"""What a user would otherwise use: character TF-IDF and logistic regression."""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.special import expit, softmax
from sklearn import config_context
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier

from igla.errors import UserError
from igla.evaluate.metrics import TINY

NAME = "TF-IDF + LR"
DESCRIPTION = "TF-IDF of characters 2–5 and logistic regression"
# A larger corpus has further strings that hardly recur.
MOST_FEATURES = 500_000
# Inverse strength of the ridge penalty: 10 beats 3 and 1 on short comments (docs/log.md).
STRENGTH = 10.0
# In fewer texts than this a string that occurs once may still tell.
FEW_TEXTS = 1000
# Parts of the rows, each of which is judged by a baseline trained on the others.
_PARTS = 5


class Baseline:
    """The baseline, trained on texts and their labels: [N] class indices, or [N, C] of 0/1.

    weights  [N] of the rows
    classes  C, of which some may have no row
    """

    def __init__(self, texts: Sequence[str], labels: np.ndarray, weights: np.ndarray, classes: int):
        self._classes = classes
        self._features = TfidfVectorizer(
            analyzer="char",
            ngram_range=(2, 5),
            min_df=1 if len(texts) < FEW_TEXTS else 2,
            max_features=MOST_FEATURES,
            sublinear_tf=True,
            dtype=np.float32,
        )
        with warnings.catch_warnings(), config_context(enable_metadata_routing=True):
            # A label that no row has, or every row, becomes a constant, of which it warns.
            warnings.filterwarnings("ignore", message="Label .* is present in all training")
            regression = LogisticRegression(C=STRENGTH, solver="liblinear")
            self._regression = OneVsRestClassifier(regression.set_fit_request(sample_weight=True))
            self._regression.fit(self._features.fit_transform(texts), labels, sample_weight=weights)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities [N, C] of texts; 0 of a class that had no row."""
        found = np.zeros((len(texts), self._classes))
        known = self._regression.classes_
        found[:, known] = self._regression.predict_proba(self._features.transform(texts))
        return found


def out_of_fold(
    texts: Sequence[str],
    labels: np.ndarray,
    weights: np.ndarray,
    strata: np.ndarray | None,
    classes: int,
) -> np.ndarray:
    """Probabilities [N, C] of texts, each by a baseline that has not seen it: one of five that are
    trained on the other four fifths.

    strata  [N] what is spread evenly over the fifths; of fewer than five rows of one, so many
            parts. None: nothing is

    UserError where a stratum has one row alone.
    """
    fewest = len(labels) if strata is None else int(np.unique(strata, return_counts=True)[1].min())
    parts = min(_PARTS, fewest)
    if parts < 2:
        raise UserError("objective.teachers=[baseline] asks for two rows of each label at least.")
    found = np.empty((len(texts), classes))
    kind = KFold if strata is None else StratifiedKFold
    for seen, left in kind(parts, shuffle=True, random_state=0).split(labels, strata):
        baseline = Baseline([texts[row] for row in seen], labels[seen], weights[seen], classes)
        found[left] = baseline.probabilities([texts[row] for row in left])
    return found


def blended(one: np.ndarray, other: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Probabilities [N, C] of two classifiers together: their mean logarithms, normalised; with
    several labels a row, the mean log-odds of each."""
    one, other = (np.clip(given, TINY, 1 - TINY) for given in (one, other))
    sums = (np.log(one) + np.log(other)) / 2
    if multi_label:
        return np.asarray(expit(sums - (np.log1p(-one) + np.log1p(-other)) / 2))
    return np.asarray(softmax(sums, axis=1))
