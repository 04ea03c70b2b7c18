"""igla generate and igla bench decode, as they are called."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from igla.cli import main
from igla.infer.generator import Generator
from igla.infer.window import fastest_window
from igla.model.decoder import Decoder, save_decoder
from igla.model.folder import read_json
from igla.text.tokenizer import load_tokenizer

Run = Callable[..., tuple[str, str, int]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls igla; returns stdout, stderr and the exit status."""

    def call(*words: object) -> tuple[str, str, int]:
        monkeypatch.setattr(sys, "argv", ["igla", *map(str, words)])
        status: object = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        out, err = capsys.readouterr()
        assert isinstance(status, int)
        return out, err, status

    return call


def test_a_text_is_written_and_its_figures_told(decoder_folder: Path, run: Run) -> None:
    out, err, status = run("generate", decoder_folder, "the ", "--max-tokens", 24)
    assert status == 0 and out.strip()
    assert re.fullmatch(
        r"24 tokens, [\d,]+ a second, the first after \d+ ms, \d in the prompt; 24 forwards; "
        r"float32, .*\n",
        err,
    )
    again, *_ = run("generate", decoder_folder, "the ", "--max-tokens", 24)
    assert again == out


def test_guesses_and_grammars_and_seeds(decoder_folder: Path, run: Run, tmp_path: Path) -> None:
    plain, *_ = run("generate", decoder_folder, "the ", "--max-tokens", 40)
    for way in (["--lookup"], ["--draft", decoder_folder]):
        guessed, err, _ = run("generate", decoder_folder, "the ", "--max-tokens", 40, *way)
        assert guessed == plain
        assert re.search(r"\d+ of \d+ guesses kept", err)
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "array", "items": {"enum": [1, 22]}, "maxItems": 3}))
    draws = ("--temperature", 1, "--seed", 5)
    out, *_ = run("generate", decoder_folder, "the ", "--json-schema", schema, *draws)
    assert set(json.loads(out)) <= {1, 22}
    out, *_ = run("generate", decoder_folder, "the ", "--regex", "[a-f]{5}x", *draws)
    assert re.fullmatch("[a-f]{5}x", out.strip())
    several = ["generate", decoder_folder, "the ", "--max-tokens", 9, *draws, "-n", 3]
    out, *_ = run(*several)
    assert out == run(*several)[0] and len(re.findall("^--- [123]$", out, re.MULTILINE)) == 3


def test_a_bias_forbids_a_token_or_makes_it_sure(decoder_folder: Path, run: Run) -> None:
    words = ["generate", decoder_folder, "the ", "--max-tokens", 4]
    token = load_tokenizer(decoder_folder).encode("q", add_special_tokens=False).ids
    assert len(token) == 1
    for name in ("q", str(token[0])):
        out, *_ = run(*words, "--logit-bias", f"{name}=1000")
        assert out == "qqqq\n"
    first = run(*words, "--max-tokens", 1)[0]
    assert run(*words, "--logit-bias", f"{first[:-1]}=-1000")[0] != first


def test_a_stop_string_ends_it(decoder_folder: Path, run: Run) -> None:
    whole, *_ = run("generate", decoder_folder, "the ", "--max-tokens", 40)
    stop = whole[5:7]
    out, err, _ = run("generate", decoder_folder, "the ", "--max-tokens", 40, "--stop", stop)
    assert out.rstrip("\n") == whole[: whole.index(stop)]
    assert int(err.split()[0]) < 40


def test_beams_are_at_least_as_likely_as_the_greedy_text(decoder_folder: Path, run: Run) -> None:
    out, err, status = run("generate", decoder_folder, "the ", "--beams", 4, "--max-tokens", 6)
    assert status == 0 and out.strip() and "float32" in err


@pytest.fixture
def filling_folder(decoder_folder: Path, tmp_path: Path) -> Path:
    """The same decoder, said to have learned to fill masks in blocks of 8."""
    folder = tmp_path / "filling"
    shutil.copytree(decoder_folder, folder)
    config = read_json(folder / "config.json") | {"wedlm": {"mask_token_id": 5, "block": 8}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_window_of_one_writes_one_token_in_a_forward(
    decoder_folder: Path, filling_folder: Path, run: Run
) -> None:
    out, err, status = run("generate", filling_folder, "the ", "--max-tokens", 24, "--window", 1)
    assert status == 0 and "24 tokens" in err and "24 forwards" in err
    assert out == run("generate", decoder_folder, "the ", "--max-tokens", 24)[0]
    _, err, status = run("generate", filling_folder, "the ", "--window", 9)
    assert status == 2 and "the model has learned blocks of 8" in err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--window", "2"], "has not learned to fill masks"),
        (["--engine", "onnx", "--precision", "int8"], "int8 is torch's"),
        (["--engine", "abacus"], "There is no engine 'abacus'; there are torch, onnx, llamacpp."),
        (["--precision", "int2"], "There is no precision 'int2'"),
        (["--engine", "onnx"], "igla export MODEL --format onnx makes it"),
        (["--engine", "llamacpp", "--precision", "int8"], "int8 is torch's"),
        (["--max-tokens", "512"], "the model knows 512 positions"),
        (["--temperature", "-1"], "temperature is -1"),
        (
            ["--regex", "(", "--max-tokens", "5"],
            "The regular expression cannot be followed: unclosed group.",
        ),
        (["--provider", "cuda"], "The provider cuda is of the onnx engine, not torch."),
        (["--logit-bias", "the"], "--logit-bias 'the' is not of the form TOKEN=NUMBER"),
        (["--logit-bias", "the=inf"], "not of the form TOKEN=NUMBER"),
        (["--logit-bias", "дом=1"], "'дом' is 6 tokens and not one"),
        (["--logit-bias", "99999=1"], "logit_bias names token 99999; there are"),
        (["--window", "2", "--lookup"], "A window goes with no grammar, guesses, beams"),
        (["--lookup", "--regex", "a"], "held to a grammar is not guessed"),
        (["--beams", "2", "--temperature", "1"], "Beam search draws nothing"),
        (["--beams", "2", "-n", "3"], "3 texts need as many beams"),
        (["--chat"], "no chat template"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], reason: str, decoder_folder: Path, run: Run
) -> None:
    out, err, status = run("generate", decoder_folder, "the ", *words)
    assert status == 2 and not out
    assert reason in err and err.count("\n") == 1


def test_a_draft_of_another_vocabulary_is_refused(
    decoder_folder: Path, decoder: Callable[..., Decoder], run: Run, tmp_path: Path
) -> None:
    save_decoder(tmp_path, decoder(), read_json(decoder_folder / "config.json"))
    _, err, status = run("generate", decoder_folder, "the ", "--draft", tmp_path)
    assert status == 2 and "it has to be the same one" in err


def test_bench_decode_tells_what_rows_cost(
    decoder_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igla.infer.window._SECONDS", 0.01)
    out, _, status = run("bench", "decode", decoder_folder, "--precision", "int8")
    assert status == 0 and out.startswith("256 tokens in the cache; int8, ")
    rows = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+) +[\d.]+$", out, re.MULTILINE)
    assert [int(size) for size, *_ in rows] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert float(rows[0][2]) == 1.0 < float(rows[-1][2])
    _, err, status = run("bench", "decode", decoder_folder, "--context", 500)
    assert status == 2 and "choose a smaller --context" in err
    _, err, status = run("bench", "decode", decoder_folder, "--prompt", "the ")
    assert status == 2 and "has not learned to fill masks" in err


def test_bench_decode_tells_which_window_writes_the_fastest(
    filling_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igla.infer.window._SECONDS", 0.01)
    monkeypatch.setattr("igla.infer.window._WRITING_SECONDS", 0.05)
    out, _, status = run("bench", "decode", filling_folder, "--prompt", "the ")
    assert status == 0
    told = out[out.index("window ") :]
    rows = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+)$", told, re.MULTILINE)
    assert [int(size) for size, *_ in rows] == [1, 2, 4, 8]  # no more than it has learned
    best = max(rows, key=lambda row: float(row[1]))[0]
    assert rows[0][2] == "1.00" and told.endswith(f"fastest here: a window of {best}\n")
    generator = Generator.load(filling_folder)
    assert generator.window == 4 and fastest_window(generator) in (1, 2, 4, 8)
