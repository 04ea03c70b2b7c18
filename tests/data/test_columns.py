import pytest

from igla.data.columns import choose_columns
from igla.errors import UserError


def choose(names, text=None, labels=None, labels_required=True):
    return choose_columns(
        names, text, labels, labels_required=labels_required, where="comments.csv"
    )


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        (["id", "comment", "toxic"], "comment", "toxic"),
        (["", "class", "tweet"], "tweet", "class"),
        (["Метка", "Текст", "id"], "Текст", "Метка"),
        (["comment_text", "is_toxic", "id", "date"], "comment_text", "is_toxic"),
        ([" Text ", "LABEL"], " Text ", "LABEL"),
    ],
)
def test_columns_are_found_by_their_usual_names_in_any_case(names, text, label):
    chosen = choose(names)
    assert (chosen.text, chosen.labels) == (text, (label,))
    assert "by its name" in chosen.said
    assert "--text-column and --label-column choose others" in chosen.said


def test_the_preferred_of_several_usual_names_is_taken_and_the_others_are_said():
    chosen = choose(["comment", "text", "sentiment", "label"])
    assert (chosen.text, chosen.labels) == ("text", ("label",))
    assert 'text column "text" (by its name, before "comment")' in chosen.said
    assert 'label column "label" (by its name, before "sentiment")' in chosen.said


def test_a_similar_name_is_not_enough():
    with pytest.raises(UserError, match="no column with a usual name for texts"):
        choose(["id", "texts", "label"])


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [(["text", "fine"], "text", "fine"), (["label", "anekdot"], "anekdot", "label")],
)
def test_of_two_columns_the_unknown_one_has_the_other_role(names, text, label):
    chosen = choose(names)
    assert (chosen.text, chosen.labels) == (text, (label,))
    assert "the only column left" in chosen.said


def test_the_other_of_two_columns_is_no_label_unless_labels_are_required():
    assert choose(["id", "text"], labels_required=False).labels == ()


@pytest.mark.parametrize("name", ["anekdot", "label"])
def test_an_only_column_is_the_text(name):
    chosen = choose([name], labels_required=False)
    assert (chosen.text, chosen.labels) == (name, ())


def test_an_only_column_cannot_serve_where_labels_are_required():
    with pytest.raises(UserError, match='labels among "text"; name it with --label-column'):
        choose(["text"])


def test_a_label_column_is_found_where_it_is_not_required():
    assert choose(["text", "label", "id"], labels_required=False).labels == ("label",)


def test_given_columns_are_taken_as_they_are():
    chosen = choose(["text", "label", "remark", "verdict"], "remark", ["verdict"])
    assert (chosen.text, chosen.labels) == ("remark", ("verdict",))
    assert chosen.said == 'text column "remark" (as given), label column "verdict" (as given)'


def test_several_label_columns_are_chosen_only_when_they_are_given():
    names = ["text", "label", "target", "toxic"]
    assert choose(names).labels == ("label",)
    chosen = choose(names, labels=["toxic", "target"])
    assert chosen.labels == ("toxic", "target")
    assert 'label columns "toxic", "target" (as given)' in chosen.said


def test_the_only_column_beside_given_labels_is_the_text():
    assert choose(["a", "b", "c"], labels=["a", "b"]).text == "c"


def test_a_given_label_column_is_not_taken_for_the_text():
    assert choose(["text", "comment", "x"], labels=["text"]).text == "comment"


def test_a_missing_given_column_is_an_error_that_names_the_nearest():
    with pytest.raises(UserError, match='comments.csv has no column "coment"; did you mean "Comm'):
        choose(["Comment", "toxic"], text="coment")
    with pytest.raises(UserError, match='no column "xyz"; its columns are "comment", "toxic"'):
        choose(["comment", "toxic"], labels=["xyz"])


def test_a_column_given_twice_is_an_error():
    with pytest.raises(UserError, match='"toxic" is asked for twice'):
        choose(["toxic", "text"], text="toxic", labels=["toxic"])


def test_columns_that_cannot_be_told_are_listed_with_the_flag():
    with pytest.raises(UserError) as raised:
        choose(["a", "b", "c"])
    assert '"a", "b", "c"' in str(raised.value)
    assert "--text-column" in str(raised.value)
    with pytest.raises(UserError, match="--label-column"):
        choose(["text", "b", "c"])
