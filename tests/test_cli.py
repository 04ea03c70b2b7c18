"""The command line: what people type, mistype and hand to it by mistake."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from igla.cli import main
from igla.recipe import Recipe, load_recipe
from igla.train import command
from igla.train.run import Extras, Outcome

Igla = Callable[..., tuple[int, str, str]]
GOOD = "text,label\n" + "".join(f"слово {index} и ещё,{index % 2}\n" for index in range(40))


@pytest.fixture
def igla(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Igla:
    """Run a command in an empty folder: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["igla", *words])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def write(name: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    Path(name).write_bytes(data)
    return name


BAD_DATA = {
    "cp1251": (GOOD.encode("cp1251"), ["rows.csv", "--encoding"]),
    "utf-16": (GOOD.encode("utf-16"), ["rows.csv", "--encoding"]),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)), ["rows.csv"]),
    "empty": (b"", ["rows.csv", "empty"]),
    "header only": (b"text,label\n", ["rows.csv"]),
    "no label column": (b"text,remark,note\none,x,a\ntwo,y,b\n", ["rows.csv", "--label-column"]),
    "no text column": (b"number,date,label\n1,2,0\n2,3,1\n", ["rows.csv", "--text-column"]),
    "one class": (GOOD.replace(",0", ",1").encode(), ["one label '1'", "at least two"]),
    "rare label": (
        GOOD.encode() + "редкое,2\n".encode(),
        ["rows.csv, row 41", "'2'", "'label'", "only once"],
    ),
    "missing text": (GOOD.encode() + b",1\n", ["rows.csv, row 41", "text is missing"]),
    "missing label": (GOOD.encode() + b"a text,\n", ["rows.csv, row 41", "label is missing"]),
    "fractions": (b"text,label\none,0.5\ntwo,1\n", ["rows.csv, row 1", "0.5", "fraction"]),
    "torn quotes": (b'text,label\n"one,0\ntwo,1\n', ["rows.csv"]),
    "too few": (b"text,label\none,0\ntwo,1\nthree,0\nfour,1\n", ["'0'", "only twice"]),
}


@pytest.mark.parametrize(("content", "named"), BAD_DATA.values(), ids=BAD_DATA.keys())
def test_bad_data_get_one_sentence_and_status_2(
    igla: Igla, content: bytes, named: list[str]
) -> None:
    status, _, err = igla("train", "--data", write("rows.csv", content), "-o", "run")
    assert status == 2
    assert err.startswith("igla: ") and err.count("\n") == 1 and "Traceback" not in err
    for word in named:
        assert word in err
    assert not Path("run").exists()


MISTYPED = {
    "no such file": (["train", "--data", "nowhere.csv"], "nowhere.csv"),
    "no data": (["train"], "--data"),
    "unknown key": (["train", "--data", "x", "train.epoch=3"], "did you mean 'train.epochs'?"),
    "wrong value": (["train", "--data", "x", "train.epochs=many"], "train.epochs"),
    "no recipe": (["train", "lost.yaml"], "There is no recipe lost.yaml"),
    "nothing to resume": (["train", "--resume"], "no run in runs"),
    "resume nowhere": (["train", "--resume", "gone"], "gone holds no run"),
    "rows as a recipe": (["train", "rows.csv"], "write --data rows.csv"),
    "a file as output": (["train", "--data", "rows.csv", "-o", "rows.csv"], "is a file"),
    "negative seed": (["train", "--data", "rows.csv", "train.seed=-1"], "train.seed"),
    "no room for a token": (["train", "--data", "rows.csv", "text.max_length=2"], "max_length"),
    "resume otherwise": (["train", "--resume", "run", "--steps", "9"], "the run's own recipe"),
    "no such run": (["predict", "gone", "text"], "no folder gone"),
    "no model": (["predict", ".", "text"], "neither a run nor a model"),
    "two sources": (["predict", ".", "text", "--data", "x.csv"], "not both"),
    "output alone": (["predict", ".", "text", "--output", "x.csv"], "--output goes with --data"),
    "evaluate nowhere": (["evaluate", "gone", "--data", "x.csv"], "no folder gone"),
    "fp16": (["train", "--data", "rows.csv", "train.precision=fp16"], "not for processors"),
    "no size": (["train", "--data", "rows.csv", "--size", "huge"], "there are tiny, mini"),
    "heads": (["train", "--data", "rows.csv", "model.heads=7"], "not a multiple of"),
    "no column": (["train", "--data", "rows.csv", "--label-column", "mood"], "mood"),
    "no weights": (["train", "--data", "rows.csv", "data.weight_column=w"], "no column 'w'"),
    "base": (["train", "--data", "rows.csv", "--base", "./nowhere"], "nowhere"),
    "recipe is there": (["recipe", "init", "rows.csv"], "--force"),
}


@pytest.mark.parametrize(("words", "said"), MISTYPED.values(), ids=MISTYPED.keys())
def test_mistyped_commands_get_one_sentence_and_status_2(
    igla: Igla, words: list[str], said: str
) -> None:
    write("rows.csv", GOOD)
    status, _, err = igla(*words)
    assert status == 2
    assert err.startswith("igla: ") and err.count("\n") == 1 and said in err


def test_an_unknown_option_is_status_2(igla: Igla) -> None:
    status, _, err = igla("train", "--epoch", "3")
    assert status == 2 and "--epoch" in err


def test_a_model_for_which_there_is_no_memory_is_one_sentence(igla: Igla) -> None:
    corpus = write("texts.txt", "\n\n".join(f"Слово {index} и ещё одно." for index in range(200)))
    size = ["model.hidden_size=67108864", "model.heads=2", "model.intermediate_size=64"]
    status, _, said = igla("train", "--corpus", corpus, "objective.task=causal_lm", *size)
    assert status == 2
    assert re.search(r"igla: There is not enough memory: [\d,.]+ GiB at once were asked", said)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_shows_the_traceback(igla: Igla, place: int) -> None:
    from igla.errors import UserError

    words = ["train", "--data", "nowhere.csv"]
    with pytest.raises(UserError, match="nowhere"):
        igla(*words[:place], "--debug", *words[place:])


def test_a_run_is_not_trained_over(igla: Igla) -> None:
    Path("run").mkdir()
    write("run/recipe.yaml", "train:\n")
    status, _, err = igla("train", "--data", write("rows.csv", GOOD), "-o", "run")
    assert status == 2 and "--resume run" in err
    write("run/notes.txt", "mine")
    Path("run/recipe.yaml").unlink()
    status, _, err = igla("train", "--data", "rows.csv", "-o", "run")
    assert status == 2 and "not empty" in err and Path("run/notes.txt").exists()


def test_a_dry_run_does_everything_and_keeps_nothing(igla: Igla) -> None:
    small = "model.layers=1 model.hidden_size=32 model.intermediate_size=64 model.heads=2".split()
    status, out, _ = igla("train", "--data", write("rows.csv", GOOD), "--dry-run", *small)
    assert status == 0
    assert "step 2: validation loss" in out and "TF-IDF" in out and "nothing was kept" in out
    assert sorted(path.name for path in Path().iterdir()) == ["rows.csv"]


def test_data_check_tells_what_a_training_would_do(igla: Igla) -> None:
    rows = GOOD + "Слово 1  И ещё,1\nслово 2 и ещё,1\n"
    status, out, _ = igla("data", "check", write("rows.csv", rows))
    assert status == 0
    assert "42 rows read" in out
    assert "dropped: 1 texts that carry different labels (2 rows)" in out
    assert "1 repeated texts" in out and "tokens a text" in out and "ready to train" in out


def test_data_check_of_what_a_training_would_refuse_shows_the_rest_and_status_2(
    igla: Igla,
) -> None:
    status, out, err = igla("data", "check", write("rows.csv", GOOD + ",1\n"))
    assert status == 2
    assert "a training would refuse" in err and "row 41" in err
    assert "dropped: 1 rows without a text" in out


def test_data_check_finds_leaks_between_given_splits(igla: Igla) -> None:
    write("rows.csv", GOOD)
    write("test.csv", "text,label\nслово 3 и ещё,1\nновое,0\nдругое,1\n")
    status, out, _ = igla("data", "check", "rows.csv", "--test", "test.csv")
    assert status == 0 and "dropped: 1 rows to train on that are in a validation or test" in out


def test_recipe_show_and_init_write_what_train_reads(igla: Igla) -> None:
    assert igla("recipe", "init", "my.yaml")[0] == 0
    status, out, _ = igla("recipe", "show", "my.yaml", "train.epochs=7")
    assert status == 0 and "  epochs: 7.0" in out and "# Passes over the data" in out
    assert igla("recipe", "show")[1] == Path("my.yaml").read_text(encoding="utf-8")


def test_doctor_measures_and_chooses(igla: Igla) -> None:
    status, out, _ = igla("doctor")
    assert status == 0
    assert "GFLOP/s" in out and "precision" in out and "cache" in out


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "igla", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Of the processor, which others may be waiting for too.
        took.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert 0 < min(took) < 0.5
    code = (
        "import igla, igla.cli, sys; print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "predict", "demo", "doctor", "data check"]
)
def test_every_command_explains_itself(igla: Igla, command: str) -> None:
    status, out, _ = igla(*command.split(), "--help")
    assert status == 0 and "Usage" in out


def test_version(igla: Igla) -> None:
    assert igla("--version")[1].startswith("igla 0.")


def test_threads_wait_briefly_unless_the_user_says_otherwise() -> None:
    code = "import igla, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    plain = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    for extra, expected in (
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ):
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=plain | extra,
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.strip() == expected


def test_encoding_and_text_column_are_the_corpus_s_where_it_is_all_there_is(igla: Igla) -> None:
    rows = "number,line\n" + "".join(
        f"1,строка {index} и ещё пять слов за ними\n" for index in range(200)
    )
    write("rows.csv", rows.encode("cp1251"))
    words = ["train", "--corpus", "rows.csv", "objective.task=masked_lm", "model.size=tiny"]
    words += ["corpus.similar=keep", "corpus.validation_share=0.1", "--steps", "1", "-o", "run"]
    status, _, err = igla(*words)
    assert status == 2 and "--encoding cp1251" in err
    status, _, err = igla(*words, "--encoding", "cp1251")
    assert status == 2 and "--text-column" in err
    status, out, _ = igla(*words, "--encoding", "cp1251", "--text-column", "line", "--dry-run")
    assert status == 0 and "200 of 200 documents" in out


def test_a_run_keeps_whole_paths_and_so_is_resumed_from_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun: list[Recipe] = []

    def train(recipe: Recipe, folder: Path, *rest: object) -> Outcome:
        begun.append(recipe)
        return Outcome(folder, finished=True)

    monkeypatch.setattr(command, "train", train)
    monkeypatch.chdir(tmp_path)
    words = ["corpus.sources={a: new.txt}", "corpus.validation=apart.txt"]
    words += ["data.source=rows.csv", "objective.ewc_corpus=[old/*.txt]"]
    command.new_run(load_recipe(None, words), Path("run"), Extras())
    (recipe,) = begun
    assert recipe.corpus.sources == {"a": str(tmp_path / "new.txt")}
    assert recipe.corpus.validation == str(tmp_path / "apart.txt")
    assert recipe.data.source == str(tmp_path / "rows.csv")
    assert recipe.objective.ewc_corpus == (str(tmp_path / "old/*.txt"),)
