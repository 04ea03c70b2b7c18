"""The sample that ships with the package."""

import csv
from collections import Counter
from importlib.resources import files

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from igla.data.rows import duplicate_key

TABLE = list(
    csv.DictReader(
        (files("igla.data") / "sample" / "comments_ru.csv")
        .read_text(encoding="utf-8")
        .splitlines(True)
    )
)


def test_every_topic_has_as_many_rude_comments_as_others() -> None:
    counts = Counter((row["topic"], row["toxic"]) for row in TABLE)
    assert len(counts) == 24 and set(counts.values()) == {20}


def test_no_comment_is_there_twice() -> None:
    assert len({duplicate_key(row["comment"]) for row in TABLE}) == len(TABLE) == 480


def test_the_label_can_be_learned_but_not_from_the_topic() -> None:
    labels = np.array([int(row["toxic"]) for row in TABLE])
    baseline = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)), LogisticRegression(C=10)
    )
    by_text = cross_val_score(baseline, [row["comment"] for row in TABLE], labels, cv=5).mean()
    by_topic = cross_val_score(baseline, [row["topic"] for row in TABLE], labels, cv=5).mean()
    assert by_text > 0.75
    assert by_topic < 0.55


def test_the_license_is_said() -> None:
    text = (files("igla.data") / "sample" / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in text
