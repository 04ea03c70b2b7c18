"""Learning from texts alone: the run, its resume, and a classifier that starts from it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from igla.data.batch import pack
from igla.errors import UserError
from igla.model.encoder import Encoder
from igla.model.folder import load_pretrained, read_shape
from igla.model.language import MaskedLanguageModel
from igla.recipe import DECODER_TASKS, Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.log import read_records
from igla.train.pretext import PRETEXTS
from igla.train.run import resume, train

Pretrain = Callable[..., Recipe]
# Decoders have tests of their own (test_causal_lm.py, test_wedlm.py).
ENCODERS = [task for task in PRETEXTS if task not in DECODER_TASKS]
CONTRASTIVE = ["objective.task=contrastive", "model.dropout=0.1"]
Killing = Callable[[Recipe, Path, int], None]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of which each word tells the next."""
    chance = random.Random(0)
    chains = {"кот": "пьёт", "пьёт": "молоко", "пёс": "ест", "ест": "мясо", "мясо": "пёс"}
    lines = []
    for _ in range(400):
        words = [chance.choice([*chains])]
        while len(words) < 12:
            words.append(chains.get(words[-1]) or chance.choice([*chains]))
        lines.append(" ".join(words))
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def small_pretraining(*changes: str) -> Recipe:
    return load_recipe(
        None,
        [
            *("model.size=tiny", "model.layers=1", "model.hidden_size=32"),
            *("model.intermediate_size=64", "model.dropout=0", "text.max_length=16"),
            *("train.precision=float32", "train.batch_size=32", "optim.learning_rate=3e-3"),
            *("corpus.validation_share=0.1", "corpus.similar=keep", "train.steps=8", *changes),
        ],
    )


@pytest.fixture
def pretrain(texts: Path) -> Pretrain:
    """The recipe of a small pretraining."""
    return lambda *changes: small_pretraining(*changes).replace(
        corpus__sources={"texts": str(texts)}
    )


def run(recipe: Recipe, folder: Path) -> Path:
    assert train(recipe, folder, plain_console(quiet=True)).finished
    return folder


@pytest.fixture(scope="module")
def teacher(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wider model with a vocabulary of its own."""
    recipe = small_pretraining("objective.task=masked_lm", "model.hidden_size=64", "model.layers=2")
    recipe = recipe.replace(corpus__sources={"texts": str(texts)})
    return run(recipe, tmp_path_factory.mktemp("teacher")) / "model"


def settings_of(task: str, teacher: Path) -> list[str]:
    more = {"contrastive": CONTRASTIVE, "distill": [f"objective.teachers=[{teacher}]"]}
    return [f"objective.task={task}", *more.get(task, [])]


@pytest.mark.parametrize("task", ENCODERS)
def test_it_learns(task: str, pretrain: Pretrain, teacher: Path, tmp_path: Path) -> None:
    settings = settings_of(task, teacher)
    recipe = pretrain(*settings, "train.steps=150", "train.evaluations_per_epoch=2")
    folder = run(recipe, tmp_path / "run")
    losses = [
        record["validation_loss"]
        for record in read_records(folder)
        if record["kind"] == "evaluation"
    ]
    assert losses[-1] < 0.8 * losses[0]
    assert json.loads((folder / "metrics.json").read_text())["best"]["validation_loss"] == min(
        losses
    )


@pytest.mark.parametrize(
    ("task", "unit"),
    [
        *(("masked_lm", unit) for unit in ("token", "word", "span")),
        *((task, "token") for task in ENCODERS if task != "masked_lm"),
    ],
)
def test_a_resumed_run_is_the_same_bit_for_bit(
    task: str,
    unit: str,
    pretrain: Pretrain,
    teacher: Path,
    tmp_path: Path,
    train_killed: Killing,
) -> None:
    settings = [*settings_of(task, teacher), f"objective.mask_unit={unit}", "train.save_steps=3"]
    whole = run(pretrain(*settings), tmp_path / "whole")

    train_killed(pretrain(*settings), tmp_path / "killed", 5)
    assert resume(tmp_path / "killed", plain_console(quiet=True)).finished
    one, other = (
        (folder / "model" / "model.safetensors").read_bytes()
        for folder in (whole, tmp_path / "killed")
    )
    assert one == other


def test_transformers_opens_a_masked_language_model_and_computes_the_same(
    pretrain: Pretrain, tmp_path: Path
) -> None:
    folder = run(pretrain("objective.task=masked_lm"), tmp_path / "run") / "model"
    theirs = AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("кот пьёт [MASK] и пёс", return_tensors="pt")["input_ids"]
    model = MaskedLanguageModel(read_shape(folder, 0.0)).eval()
    assert load_pretrained(model, folder) == ()
    with torch.no_grad():
        hidden = model(pack([ids[0].numpy()]), torch.arange(ids.shape[1]))
        logits = hidden @ model.encoder.embeddings.word.weight.t() + model.guess.bias
        torch.testing.assert_close(logits, theirs(ids).logits[0], rtol=1e-4, atol=1e-4)


def test_transformers_opens_a_discriminator(pretrain: Pretrain, tmp_path: Path) -> None:
    folder = run(pretrain("objective.task=replaced_token"), tmp_path / "run") / "model"
    assert AutoModel.from_pretrained(folder).config.hidden_size == 32


def test_a_classifier_starts_from_what_was_pretrained(
    pretrain: Pretrain, small: Callable[..., Recipe], tmp_path: Path
) -> None:
    base = run(pretrain("objective.task=masked_lm"), tmp_path / "base") / "model"
    folder = run(small(f"model.base={base}", "model.size=tiny"), tmp_path / "run")
    assert "starts anew: dense.weight, output.weight" in (folder / "train.log").read_text()


def test_a_base_learns_labelled_rows_and_ngrams_that_a_classifier_keeps(
    small: Callable[..., Recipe], rows: Path, tmp_path: Path
) -> None:
    first = small_pretraining("objective.task=masked_lm")
    base = run(first.replace(corpus__sources={"rows": str(rows)}), tmp_path / "base") / "model"
    changes = ["objective.task=masked_lm", f"model.base={base}", f"data.source={rows}"]
    adapted = run(small_pretraining(*changes, "model.ngrams=512"), tmp_path / "adapted")
    classifier = run(small(f"model.base={adapted / 'model'}"), tmp_path / "run")
    assert "data: 86 of 86 documents" in (adapted / "train.log").read_text()
    notes = [json.loads((one / "data.json").read_text()) for one in (adapted, classifier)]
    assert notes[0]["split"] == notes[1]["split"]
    assert "rows read" in notes[0]["decisions"][1]["said"]
    assert "starts anew: dense.weight, output.weight\n" in (classifier / "train.log").read_text()
    assert read_shape(classifier / "model", 0.0).ngrams == 512


def test_a_base_or_teacher_that_has_learned_the_rows_by_another_split_is_refused(
    small: Callable[..., Recipe], trained: Path, rows: Path, tmp_path: Path
) -> None:
    other = (f"model.base={trained / 'model'}", "train.seed=7")
    with pytest.raises(UserError, match="another split"):
        run(small(*other), tmp_path / "classifier")
    with pytest.raises(UserError, match="another split"):
        teacher = f"objective.teachers=[{trained / 'model'}]"
        run(small(teacher, "model.base=none", "train.seed=7"), tmp_path / "taught")
    with pytest.raises(UserError, match="another split"):
        task = ("objective.task=masked_lm", f"data.source={rows}", "text.max_length=128")
        run(small_pretraining(*task, *other), tmp_path / "adapted")


@pytest.mark.parametrize("way", ["base", "teacher"])
def test_what_a_base_had_from_another_model_is_remembered(
    way: str, small: Callable[..., Recipe], trained: Path, pretrain: Pretrain, tmp_path: Path
) -> None:
    model = trained / "model"
    more = {
        "base": ("objective.task=masked_lm", f"model.base={model}"),
        "teacher": ("objective.task=distill", f"objective.teachers=[{model}]"),
    }
    between = run(pretrain(*more[way]), tmp_path / "between") / "model"
    with pytest.raises(UserError, match="another split"):
        run(small(f"model.base={between}", "train.seed=7"), tmp_path / "classifier")


def test_documents_too_short_are_said_and_none_else_is_refused(texts: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("да\n\nнет", encoding="utf-8")
    both = {"texts": str(texts), "short": str(short)}
    recipe = small_pretraining("objective.task=masked_lm").replace(corpus__sources=both)
    said = (run(recipe, tmp_path / "run") / "train.log").read_text(encoding="utf-8")
    assert "left out: 2 documents of fewer than 8 tokens" in said
    with pytest.raises(UserError, match="nothing to learn from"):
        run(recipe.replace(corpus__sources={"short": str(short)}), tmp_path / "none")


def test_texts_of_unknown_words_alone_are_refused(
    pretrain: Pretrain, rows: Path, tmp_path: Path
) -> None:
    base = run(pretrain("objective.task=masked_lm"), tmp_path / "base") / "model"
    alien = small_pretraining("objective.task=masked_lm", f"model.base={base}")
    with pytest.raises(UserError, match="knows no word"):
        run(alien.replace(corpus__sources={"rows": str(rows)}), tmp_path / "run")


def test_pretraining_goes_on_from_a_base(pretrain: Pretrain, tmp_path: Path) -> None:
    base = run(pretrain("objective.task=masked_lm"), tmp_path / "base") / "model"
    further = pretrain("objective.task=masked_lm", f"model.base={base}")
    folder = run(further, tmp_path / "further")
    assert "starts anew: nothing" in (folder / "train.log").read_text()


def test_what_a_base_leaves_nothing_to_settle_of_is_told(
    pretrain: Pretrain, teacher: Path, tmp_path: Path
) -> None:
    settings = ["text.vocab_size=20", "text.max_length=64"]
    run(pretrain("objective.task=masked_lm", f"model.base={teacher}", *settings), tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert "text.max_length is 16, the most that the base reads" in log
    assert "since the base has its own: model.size, model.hidden_size, model.layers" in log
    student = pretrain(*settings_of("distill", teacher), "text.vocab_size=20")
    run(student, tmp_path / "student")
    log = (tmp_path / "student" / "train.log").read_text(encoding="utf-8")
    assert "not used, since the teacher has its own: text.vocab_size\n" in log


def test_what_is_wrong_with_a_base_is_told_before_texts_are_read(
    pretrain: Pretrain, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        run(pretrain("objective.task=masked_lm", f"model.base={tmp_path}/none"), tmp_path / "run")
    assert not (tmp_path / "run" / "train.log").read_text(encoding="utf-8")


def test_another_corpus_is_refused_on_resume(
    pretrain: Pretrain, texts: Path, tmp_path: Path
) -> None:
    folder = run(pretrain("objective.task=masked_lm"), tmp_path / "run")
    other = tmp_path / "other.txt"
    other.write_text(texts.read_text() + "\n\nещё одна строка", encoding="utf-8")
    recipe = load_recipe(folder / "recipe.yaml").replace(corpus__sources={"texts": str(other)})
    with pytest.raises(UserError, match="not those that this run began with"):
        train(recipe, folder, plain_console(quiet=True))


def test_a_tokenizer_without_a_mask_is_refused(pretrain: Pretrain, tmp_path: Path) -> None:
    base = run(pretrain("objective.task=masked_lm"), tmp_path / "base") / "model"
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [one for one in tokenizer["added_tokens"] if one["id"] != 4]
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["[NOTHING]"] = vocabulary.pop("[MASK]")
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="has no \\[MASK\\]"):
        run(pretrain("objective.task=masked_lm", f"model.base={base}"), tmp_path / "run")


def test_a_base_that_does_not_know_its_tokens_is_refused(
    pretrain: Pretrain, tmp_path: Path
) -> None:
    base = run(pretrain("objective.task=masked_lm"), tmp_path / "base") / "model"
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["новое"] = len(tokenizer["model"]["vocab"])
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="but its model knows"):
        run(pretrain("objective.task=masked_lm", f"model.base={base}"), tmp_path / "run")


def test_the_generator_computes_in_the_runs_precision_too(
    pretrain: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    forward = Encoder.forward

    def look(self: Encoder, *given: Any, **named: Any) -> Any:
        seen.add((self.config.hidden_size, self.compute_dtype))
        return forward(self, *given, **named)

    monkeypatch.setattr(Encoder, "forward", look)
    run(pretrain("objective.task=replaced_token", "train.precision=bf16"), tmp_path / "run")
    assert len(seen) == 2 and {dtype for _, dtype in seen} == {torch.bfloat16}


@pytest.mark.parametrize("words", ["pieces", "similar"])
def test_a_bases_body_moves_to_a_new_vocabulary(
    words: str, pretrain: Pretrain, teacher: Path, tmp_path: Path
) -> None:
    settings = ["text.vocabulary=new", f"model.words={words}", f"model.base={teacher}"]
    folder = run(
        pretrain(
            "objective.task=masked_lm",
            "text.vocab_size=36",
            *settings,
            "train.steps=1",
            "optim.learning_rate=1e-9",
        ),
        tmp_path / "run",
    )
    old, new = (AutoTokenizer.from_pretrained(one) for one in (teacher, folder / "model"))
    assert len(new) == 36 < len(old)
    before, after = (AutoModel.from_pretrained(one) for one in (teacher, folder / "model"))
    for one, other in zip(before.encoder.parameters(), after.encoder.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    shared = sorted(set(old.get_vocab()) & set(new.get_vocab()))
    assert len(shared) > 20
    torch.testing.assert_close(
        after.embeddings.word_embeddings.weight[new.convert_tokens_to_ids(shared)],
        before.embeddings.word_embeddings.weight[old.convert_tokens_to_ids(shared)],
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["text.vocabulary=new"], "name the base by --base"),
        (["model.words=pieces"], "asks for a base"),
        (["objective.task=distill"], r"name objective\.teachers"),
        (["objective.task=distill", "objective.teachers=[baseline]"], "one teacher, an encoder"),
        (["objective.task=contrastive"], "by their dropout"),
        ([*CONTRASTIVE, "train.batch_size=1"], "a batch of one text lacks"),
        ([*CONTRASTIVE, "train.micro_batch_size=1"], "a batch of one text lacks"),
        (["model.base=TEACHER", "text.vocabulary=new"], "asks for model.words=pieces or"),
        (
            [
                "model.base=TEACHER",
                "text.vocabulary=new",
                "model.words=pieces",
                "text.max_length=64",
            ],
            "reads 16 tokens",
        ),
        (["objective.task=classify", "text.vocabulary=new"], "does nothing for objective.task"),
        (["objective.r_drop=1"], "does nothing for objective.task=masked_lm"),
        (["text.evasion=0.1"], "does nothing for objective.task=masked_lm"),
        (["objective.teachers=[TEACHER]"], "does nothing for objective.task=masked_lm"),
        (["curriculum.judge=x"], r"without curriculum\.by=loss"),
        (["curriculum.until=0.2"], r"without curriculum\.by"),
        (["curriculum.by=loss", "curriculum.judge=TEACHER"], "judges labelled rows"),
        (["corpus.temperature=2", "corpus.shares={large: 1, small: 1}"], "beside corpus.shares"),
        (["objective.task=classify"], r"corpus\.sources does nothing for objective\.task"),
        (["model.base=TEACHER", "model.words=similar"], "keeps its vocabulary"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: list[str], sentence: str, pretrain: Pretrain, teacher: Path, tmp_path: Path
) -> None:
    settings = [one.replace("TEACHER", str(teacher)) for one in settings]
    with pytest.raises(UserError, match=sentence):
        run(pretrain("objective.task=masked_lm", *settings), tmp_path / "run")
