"""Documents: where they begin and end, what is dropped, and how they are split."""

import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from igla.data.corpus import Corpus, batched, documents, load_corpus
from igla.data.dataset import load_dataset
from igla.data.source import open_source
from igla.data.split import TRAIN, VALIDATION
from igla.errors import UserError
from igla.recipe import CorpusRecipe, DataRecipe

LONG = "однажды в студёную зимнюю пору я из лесу вышел был сильный мороз гляжу поднимается"


def corpus(folder: Path, text: str, **settings: object) -> Corpus:
    file = folder / "texts.txt"
    file.write_text(text, encoding="utf-8")
    recipe = CorpusRecipe.model_validate({"sources": {"texts": str(file)}, **settings})
    return load_corpus(recipe, seed=1)


def texts(corpus: Corpus) -> list[str]:
    return list(corpus.texts(TRAIN)) + list(corpus.texts(VALIDATION))


def test_an_empty_line_ends_a_document_and_so_does_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("раз\nдва\n\n\n три\n   \nчетыре", encoding="utf-8")
    with lzma.open(tmp_path / "b.old.TXT.xz", "wt", encoding="utf-8") as file:
        file.write("пять\n")
    found = list(documents(open_source(tmp_path), "text"))
    assert found == ["раз\nдва", " три", "четыре", "пять"]


def test_a_file_as_one_document_keeps_its_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("раз\n\n\n два\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("три\n\nчетыре", encoding="utf-8")
    found = list(documents(open_source(tmp_path), "text", whole_files=True))
    assert found == ["раз\n\n\n два", "три\n\nчетыре"]


def test_long_documents_are_few_at_once() -> None:
    found = list(batched(["а", "бб", "вввв", "г", "д"], size=3, signs=4))
    assert found == [["а", "бб", "вввв"], ["г", "д"]]
    assert list(batched(["а" * 9, "б", "в", "г", "д"], 3, 4)) == [["а" * 9], ["б", "в", "г"], ["д"]]


def test_texts_to_validate_on_may_be_named(tmp_path: Path) -> None:
    apart = tmp_path / "apart.txt"
    apart.write_text("пять шесть\n\nраз два\n", encoding="utf-8")
    found = corpus(tmp_path, "раз два\n\nтри четыре\n", validation=str(apart))
    assert list(found.texts(VALIDATION)) == ["пять шесть", "раз два"]
    # What is validated on is not learned from.
    assert list(found.texts(TRAIN)) == ["три четыре"]
    assert found.names == ("texts",)


def test_a_row_of_a_table_is_a_document(tmp_path: Path) -> None:
    table = pa.table({"text": ["раз\n\nдва", None, "", "три"]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert list(documents(open_source(tmp_path / "rows.parquet"), "text")) == ["раз\n\nдва", "три"]


def test_a_table_named_like_a_text_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "rows.txt.csv").write_text("text,n\nраз,1\nдва,2\n", encoding="utf-8")
    assert list(documents(open_source(tmp_path / "rows.txt.csv"), "text")) == ["раз", "два"]


def test_the_column_of_the_texts_of_tables_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("one,other\nраз,два\n", encoding="utf-8")
    (tmp_path / "lines.txt").write_text("три", encoding="utf-8")
    sources = {name: str(tmp_path / name) for name in ("rows.csv", "lines.txt")}
    for column, expected in (("one", "раз"), ("other", "два")):
        found = load_corpus(CorpusRecipe(sources=sources, text_column=column), seed=1)
        assert sorted(texts(found)) == sorted([expected, "три"])
        assert f'rows.csv: texts in column "{column}"' in [one.said for one in found.decisions]
    with pytest.raises(UserError, match='no column "on"; did you mean "one"'):
        load_corpus(CorpusRecipe(sources=sources, text_column="on"), seed=1)


def test_files_that_are_left_out_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("раз", encoding="utf-8")
    recipe = CorpusRecipe(sources={"books": str(tmp_path)})
    load_corpus(recipe, seed=1)
    (tmp_path / "b.doc").write_text("два", encoding="utf-8")
    said = load_corpus(recipe, seed=1).decisions[0].said
    assert said == f"books: left out, being of no supported format: {tmp_path / 'b.doc'}"


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    found = corpus(
        tmp_path,
        "\n\n".join(["раз два", "Раз  ДВА", "12345 !", "one two three", LONG, f"{LONG} вот"]),
        language="ru",
    )
    assert sorted(texts(found)) == sorted(["раз два", LONG])
    said = [decision.said for decision in found.decisions]
    assert "texts: 2 of 6 documents" in said
    for why in (
        *("few letters", "not in Russian letters", "the same but for case and spaces"),
        "nearly the same as another",
    ):
        assert f"dropped: 1 documents ({why})" in said


def test_labelled_rows_keep_their_parts_and_those_to_test_on_are_not_read(rows: Path) -> None:
    dataset = load_dataset(DataRecipe(source=str(rows)), seed=1)
    found = load_corpus(CorpusRecipe(similar="keep"), 1, dataset)
    assert found.names == ("data",)
    for part in (TRAIN, VALIDATION):
        assert sorted(found.texts(part)) == sorted(dataset.texts(dataset.part(part)))
    # Where the same texts stand in another source as well, it is no different.
    doubled = CorpusRecipe(similar="keep", sources={"forum": str(rows)})
    again = load_corpus(doubled, 1, dataset)
    for part in (TRAIN, VALIDATION):
        assert sorted(again.texts(part)) == sorted(found.texts(part))
    other = load_corpus(
        CorpusRecipe(similar="keep"), 2, load_dataset(DataRecipe(source=str(rows)), seed=2)
    )
    assert other.fingerprint != found.fingerprint
    with pytest.raises(UserError, match="named data"):
        load_corpus(CorpusRecipe(sources={"data": str(rows)}), 1, dataset)


def test_similar_documents_can_be_kept(tmp_path: Path) -> None:
    found = corpus(tmp_path, f"{LONG}\n\n{LONG} вот", similar="keep")
    assert len(texts(found)) == 2


def test_the_split_is_by_document_and_does_not_hang_on_its_neighbours(tmp_path: Path) -> None:
    lines = [f"слово номер {number}" for number in range(1000)]
    first = corpus(tmp_path, "\n\n".join(lines), validation_share=0.2)
    again = corpus(tmp_path, "\n\n".join(reversed(lines[::2])), validation_share=0.2)
    kept_aside = set(first.texts(VALIDATION))
    assert 150 < len(kept_aside) < 250
    assert set(again.texts(VALIDATION)) == kept_aside & set(lines[::2])


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Not one document"):
        corpus(tmp_path, "1\n\n2\n\n3")


def test_no_source_is_an_error() -> None:
    with pytest.raises(UserError, match=r"corpus\.sources"):
        load_corpus(CorpusRecipe(), seed=1)
