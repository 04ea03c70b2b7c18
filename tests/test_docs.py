"""The documentation is true: its commands run, its code runs, its references hold."""

import csv
import json
import lzma
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from igla.cli import main
from igla.gate.log import GateLog
from igla.recipe import Recipe, field_names, load_recipe

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
# What stands in a console block, but is not igla's.
NOT_OURS = (". .venv/bin/activate", "make", "cp", "git", "python benchmarks", "pip")


@pytest.fixture
def user_folder(rows: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader of the docs would stand, with the files that they speak of."""
    shutil.copy(rows, tmp_path / "comments.csv")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    with rows.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("\n\n".join(texts * 2), encoding="utf-8")
    with lzma.open(tmp_path / "chats.txt.xz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(f"{text} вот так вот" for text in texts))
    GateLog(f"sqlite:///{tmp_path}/gate.db").close()  # as a gate's server has made it
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_runs(
    page: str, user_folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [command for command in commands(page) if not command.startswith(NOT_OURS)]
    if not any("train" in command for command in ours):
        shutil.copytree(trained, user_folder / "runs" / "first")
    for command in ours:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command.split("#")[0])]
        assert words[0] in ("igla", ".venv/bin/igla"), command
        monkeypatch.setattr(sys, "argv", words)
        status: object = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        assert not status, command


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_commands_of_the_page_on_feedback_are_answered_one_after_another(
    user_folder: Path, trained: Path
) -> None:
    shutil.copytree(trained, user_folder / "runs" / "first")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    begun, *asked = blocks("docs/feedback.md", "sh")
    script = [
        "set -e -o pipefail",
        f'igla() {{ exec {sys.executable} -m igla "$@"; }}',
        """curl() { command curl -fsS -w '\\n' "$@"; }""",
        begun.replace("keys.json &", f"keys.json --port {port} & server=$!"),
        "trap 'kill $server' EXIT",
        f"until command curl -s localhost:{port}/health > health",
        "do kill -0 $server; sleep 0.2; done",
        *(block.replace("localhost:8080", f"localhost:{port}") for block in asked),
    ]
    command = ["bash", "-c", "\n".join(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text, tool, feedback = map(json.loads, done.stdout.splitlines())
    assert text["logged"] and tool["logged"] and text["decision"] != tool["decision"]
    assert feedback["feedback"] and not feedback["repeated"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_code_of_a_page_runs(page: str, user_folder: Path, trained: Path) -> None:
    shutil.copytree(trained, user_folder / "runs" / "first")
    with (user_folder / "comments.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    names = {"texts": [row["text"] for row in table], "labels": [row["label"] for row in table]}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def test_the_reference_of_the_recipe_is_what_the_recipe_says() -> None:
    assert blocks("docs/recipe.md", "yaml") == [Recipe().to_yaml(documented=True)]


def test_every_setting_that_the_docs_name_is_one() -> None:
    sections = "|".join(Recipe.model_fields)
    known = set(field_names())
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for name in re.findall(rf"`((?:{sections})\.[a-z_]+)(?:=[^`]*)?`", text):
            assert name in known or name.endswith((".json", ".log")), f"{page}: {name}"


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_every_recipe_is_valid(recipe: Path) -> None:
    assert load_recipe(recipe) != Recipe()
