"""Decisions and feedback over HTTP."""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from igla.cli import main
from igla.gate.log import GateLog
from igla.infer.classifier import Classifier
from igla.serve.keys import add_key
from igla.text.guard import reading

CONFIG = """
gate:
  allow: 0.6
  block: 0.2
  slices: 2
  log_seconds: 30  # other tests may keep the disk busy
  tools: {shell: {allow: 1.0, block: 0.0}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the gate's log (gate.db) and keys (keys.json)."""
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def gate(serve_gate: Callable[..., Any], trained: Path, folder: Path) -> Iterator[httpx.Client]:
    """A gate that asks for keys, spoken to with one for score and feedback."""
    (folder / "gate.yaml").write_text(CONFIG, encoding="utf-8")
    keys = folder / "keys.json"
    key = add_key(keys, "forum", ("score", "feedback"), None)
    log = ["--log", f"sqlite:///{folder}/gate.db"]
    config = ["--config", str(folder / "gate.yaml"), "--keys", str(keys)]
    with (
        serve_gate(str(trained), *log, *config) as running,
        httpx.Client(base_url=running.address, headers={"x-api-key": key}, timeout=30) as client,
    ):
        yield client


@pytest.fixture
def log(folder: Path) -> Iterator[GateLog]:
    with closing(GateLog(f"sqlite:///{folder}/gate.db")) as opened:
        yield opened


def decide(gate: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = gate.post("/v1/gate/decide", json=asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert answer.headers["x-igla-version"] == f"{found['model']}/{found['version']}"
    return dict(found)


def test_a_text_is_allowed_or_blocked_by_the_probability_of_allow(
    gate: httpx.Client, trained: Path, log: GateLog
) -> None:
    texts = ["добрый дом", "глупый гадкий дом", "дом"]
    expected = 1 - Classifier.load(trained / "model").probabilities(texts)[:, 1]
    for text, probability in zip(texts, expected, strict=True):
        found = decide(gate, text=text, subject="anna", slice="short")
        assert found["probability"] == pytest.approx(probability, abs=1e-6)
        assert found["thresholds"] == {"allow": 0.6, "block": 0.2} and found["logged"]
        action = "allow" if probability >= 0.6 else "block" if probability <= 0.2 else "review"
        assert found["action"] == action
        kept = log.decision(found["decision"])
        assert kept is not None and (kept.text, kept.action, kept.key) == (text, action, "forum")
        assert (kept.subject, kept.slice, kept.version) == ("anna", "short", found["version"])


def test_a_tool_call_is_decided_by_the_cuts_of_its_tool(gate: httpx.Client, log: GateLog) -> None:
    call = {"tool": "shell", "arguments": {"b": 1, "a": "добрый"}, "context": "дом"}
    found = decide(gate, **call)
    assert found["action"] == "review" and found["thresholds"] == {"allow": 1.0, "block": 0.0}
    kept = log.decision(found["decision"])
    assert kept is not None and kept.tool == "shell"
    assert kept.text == 'tool: shell\n{"a": "добрый", "b": 1}\nдом'
    waiting = gate.get("/v1/gate/review").json()["waiting"]
    assert found["decision"] in [one["decision"] for one in waiting]


def test_what_is_not_to_be_stored_is_decided_and_counted_without_its_text(
    gate: httpx.Client, log: GateLog, folder: Path
) -> None:
    for name in ("do_not_store", "doNotStore"):
        found = decide(gate, text="секретный дом", **{name: True})
        kept = log.decision(found["decision"])
        assert kept is not None and kept.text is None and kept.context is None
    files = [*folder.glob("gate.db*")]
    assert files and all("секретный".encode() not in file.read_bytes() for file in files)


def test_feedback_counts_once_by_its_idempotency_key(gate: httpx.Client, log: GateLog) -> None:
    found = decide(gate, text="плохой дом")
    said = {"decision": found["decision"], "outcome": "wrongly_blocked", "who": "anna"}
    header = {"idempotency-key": "one"}
    first = gate.post("/v1/gate/feedback", json=said, headers=header)
    again = gate.post("/v1/gate/feedback", json={**said, "idempotency_key": "one"})
    other = gate.post("/v1/gate/feedback", json={**said, "who": "boris"}, headers=header)
    assert (first.status_code, again.status_code, other.status_code) == (200, 200, 409)
    assert first.json() == {**again.json(), "repeated": False} and again.json()["repeated"]
    assert (first.json()["target"], first.json()["weight"]) == (1, 4)
    (kept,) = [one for one in log.feedback_since(0) if one.decision == found["decision"]]
    assert (kept.id, kept.text, kept.who) == (first.json()["feedback"], "плохой дом", "anna")


def test_feedback_to_a_text_or_a_tool_call_needs_no_decision(
    gate: httpx.Client, log: GateLog
) -> None:
    call = {"tool": "mail", "arguments": {"to": "a@b"}, "outcome": "override_block"}
    for said in ({"text": "милый дом", "outcome": "override_allow"}, call):
        answer = gate.post("/v1/gate/feedback", json=said)
        assert answer.status_code == 200 and answer.json()["weight"] == 2
    kept = log.feedback_since(0)[-2:]
    assert [(one.text, one.target) for one in kept] == [
        ("милый дом", 1),
        ('tool: mail\n{"to": "a@b"}', 0),
    ]
    assert all(one.version is None and one.key == "forum" for one in kept)


def test_feedback_is_taken_back_by_the_key_that_gave_it(
    gate: httpx.Client, log: GateLog, folder: Path
) -> None:
    said = {"text": "дом с ошибкой", "outcome": "confirmed_block"}
    name = gate.post("/v1/gate/feedback", json=said).json()["feedback"]
    other = add_key(folder / "keys.json", "shop", ("feedback",), None)
    foreign = gate.delete(f"/v1/gate/feedback/{name}", headers={"x-api-key": other})
    assert foreign.status_code == 404
    assert gate.delete(f"/v1/gate/feedback/{name}").json()["repeated"] is False
    assert gate.delete(f"/v1/gate/feedback/{name}").json()["repeated"] is True
    assert name not in [one.id for one in log.feedback_since(0)]


@pytest.mark.parametrize(
    ("value", "text", "outcome"),
    [
        (0.9, "глупый гадкий дом", "confirmed_block"),
        (0.1, "глупый гадкий дом", "wrongly_blocked"),
        (0.9, "добрый милый дом", "wrongly_allowed"),
        (0.1, "добрый милый дом", "confirmed_allow"),
    ],
)
def test_what_a_client_of_perspective_suggests_is_feedback(
    gate: httpx.Client, log: GateLog, value: float, text: str, outcome: str
) -> None:
    said = {
        "comment": {"text": text},
        "attributeScores": {"TOXICITY": {"summaryScore": {"value": value}}},
        "clientToken": f"{value} {text}",
        "sessionId": "anna",
        "communityId": "cats",
    }
    for _ in range(2):
        assert gate.post("/v1alpha1/comments:suggestscore", json=said).status_code == 200
    kept = [one for one in log.feedback_since(0) if one.source == "perspective"][-1]
    assert (kept.outcome, kept.text, kept.who, kept.slice) == (outcome, text, "anna", "cats")
    same = [
        one for one in log.feedback_since(0) if one.source == "perspective" and one.text == text
    ]
    assert [one.outcome for one in same].count(kept.outcome) == 1


@pytest.mark.parametrize(
    ("label", "text", "toxicity"),
    [("rude", "глу%пый гaдкий мер_зкий", 0.9), ("kind", "злой при%ятный сл_авный дом", 0.1)],
)
def test_what_is_decided_and_what_is_suggested_go_by_the_same_reading(
    serve_gate: Callable[..., Any],
    trained: Path,
    tmp_path: Path,
    label: str,
    text: str,
    toxicity: float,
) -> None:
    classifier = Classifier.load(trained / "model")
    column = classifier.rule.classes.index(label)
    undone = reading(text)
    assert undone is not None
    written, read = classifier.probabilities([text, undone])[:, column]
    assert read > written + 0.01
    cut = 1 - float(written + read) / 2  # allowed as it is written, blocked as it is read
    config = tmp_path / "gate.yaml"
    gate = f"{{label: {label}, allow: {cut}, block: {cut}, log_seconds: 30}}"
    config.write_text(f"guard: true\ngate: {gate}\n", encoding="utf-8")
    url = f"sqlite:///{tmp_path}/gate.db"
    with (
        serve_gate(str(trained), "--log", url, "--config", str(config)) as running,
        httpx.Client(base_url=running.address, timeout=30) as client,
        closing(GateLog(url)) as log,
    ):
        assert decide(client, text=text)["action"] == "block"
        scores = {"TOXICITY": {"summaryScore": {"value": toxicity}}}
        said = {"comment": {"text": text}, "attributeScores": scores}
        assert client.post("/v1alpha1/comments:suggestscore", json=said).status_code == 200
        assert [one.outcome for one in log.feedback_since(0)] == ["confirmed_block"]


@pytest.mark.parametrize(
    ("route", "asked", "status"),
    [
        ("decide", {}, 400),
        ("decide", {"text": "  "}, 400),
        ("decide", {"text": "a", "tool": "shell"}, 400),
        ("decide", {"text": "a", "arguments": {}}, 400),
        ("decide", {"text": "a", "subjct": "anna"}, 400),
        ("decide", {"text": "a", "subject": "an\0na"}, 400),
        ("decide", {"text": "a", "slice": "a" * 101}, 400),
        ("decide", {"text": "a", "model": "other"}, 404),
        ("feedback", {"outcome": "confirmed_allow"}, 400),
        ("feedback", {"outcome": "confirmed_allow", "text": "a", "decision": "d"}, 400),
        ("feedback", {"outcome": "1.5", "text": "a"}, 400),
        ("feedback", {"outcome": "confirmed_allow", "decision": "d_0"}, 404),
        ("feedback", {"outcome": "confirmed_allow", "text": ""}, 400),
        ("feedback", {"outcome": "confirmed_allow", "text": "a", "slice": "a" * 101}, 400),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence(
    gate: httpx.Client, route: str, asked: dict[str, Any], status: int
) -> None:
    answer = gate.post(f"/v1/gate/{route}", json=asked)
    assert answer.status_code == status and answer.json()["error"].endswith(".")


def test_a_slice_more_than_there_may_be_is_refused_and_those_that_are_there_are_not(
    gate: httpx.Client,
) -> None:
    for name in ("short", "cats", "short"):
        decide(gate, text="дом", slice=name)
    said = {"text": "дом", "slice": "dogs"}
    for route, more in (("decide", {}), ("feedback", {"outcome": "confirmed_allow"})):
        answer = gate.post(f"/v1/gate/{route}", json={**said, **more})
        told = {"error": "There are 2 slices already, and dogs would be one more."}
        assert (answer.status_code, answer.json()) == (409, told)


def test_what_no_database_holds_is_decided_and_kept_as_what_can_be_kept(
    gate: httpx.Client, log: GateLog
) -> None:
    content = r'{"tool": "mail", "arguments": ["дом \ud83d"], "context": "\u0000!"}'
    answer = gate.post(
        "/v1/gate/decide", content=content, headers={"content-type": "application/json"}
    )
    kept = log.decision(answer.json()["decision"])
    assert kept is not None and kept.text == 'tool: mail\n["дом \ufffd"]\n\ufffd!'


def test_however_deep_the_arguments_are_the_server_does_not_fail(gate: httpx.Client) -> None:
    """At some depth they can be read, and not written."""
    headers = {"content-type": "application/json"}
    for depth in (5, *range(930, 980), 5_000):
        content = f'{{"tool": "mail", "arguments": {"[" * depth}{"]" * depth}}}'
        answer = gate.post("/v1/gate/decide", content=content, headers=headers)
        assert answer.status_code in (200, 400), (depth, answer.text)


def test_what_is_given_back_as_it_came_may_hold_no_half_letter(gate: httpx.Client) -> None:
    said = {
        "comment": {"text": "дом"},
        "attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.1}}},
        "requestedAttributes": {"TOXICITY": {}},
    }
    for method in ("analyze", "suggestscore"):
        for more in ({"clientToken": "\ud83d"}, {"languages": ["\ud83d"]}):
            answer = gate.post(
                f"/v1alpha1/comments:{method}",
                content=json.dumps({**said, **more}),
                headers={"content-type": "application/json"},
            )
            assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("after", ["-1", str(2**63), "9" * 400])
def test_a_place_that_no_log_has_is_refused(gate: httpx.Client, after: str) -> None:
    answer = gate.get("/v1/gate/review", params={"after": after})
    assert answer.status_code == 400 and answer.json()["error"].endswith(".")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/gate/decide"),
        ("POST", "/v1/gate/feedback"),
        ("DELETE", "/v1/gate/feedback/f_0"),
        ("GET", "/v1/gate/review"),
        ("GET", "/v1/gate/status"),
    ],
)
def test_every_route_asks_for_its_key(
    gate: httpx.Client, folder: Path, method: str, path: str
) -> None:
    body = {"text": "дом", **({"outcome": "confirmed_allow"} if "feedback" in path else {})}
    without = httpx.request(method, f"{gate.base_url}{path}", json=body)
    assert without.status_code == 401 and "key" in without.json()["error"]
    scope = "feedback" if path.endswith("decide") else "score"
    key = add_key(folder / "keys.json", f"{scope} {path}", (scope,), None)
    other = httpx.request(method, f"{gate.base_url}{path}", json=body, headers={"x-api-key": key})
    assert other.status_code == 403


def test_a_key_that_has_given_too_much_is_told_when_to_come_again(
    serve_gate: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    config = tmp_path / "gate.yaml"
    config.write_text("gate: {feedback_per_hour: 2}\n", encoding="utf-8")
    words = ["--log", f"sqlite:///{tmp_path}/gate.db", "--config", str(config)]
    with serve_gate(str(trained), *words) as running:
        said = {"text": "дом", "outcome": "confirmed_allow"}
        answers = [httpx.post(f"{running.address}/v1/gate/feedback", json=said) for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert 3500 < int(answers[2].headers["retry-after"]) <= 3600


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--log", "gate.db"], "is no log"),
        (["--log", "sqlite://"], "in memory"),
        (["--log", "mysql://x/y"], "not in mysql"),
        (["--log", "sqlite:////nowhere/gate.db"], "no folder"),
    ],
)
def test_a_log_that_cannot_be_is_refused_before_the_server_starts(
    trained: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["igla", "gate", "serve", str(trained), "--port=0", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "config", "said"),
    [
        ("{run} --learn gate --port {taken}", "", "cannot be listened at"),
        ("{run}x --learn gate", "", "There is no folder"),
        ("{run} --learn gate --keys none.json", "", "none.json"),
        ("{run} --learn gate", "gate: {label: ham}", "no class ham"),
        ("{run} --learn gate", "attributes: {TOXICITY: ham}", "the class ham"),
        ("{run} {run}", "", "the same name"),
    ],
)
def test_a_start_that_fails_makes_neither_a_log_nor_a_gate(
    trained: Path,
    tmp_path: Path,
    words: str,
    config: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "gate.yaml").write_text(f"{config}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        named = words.format(run=trained, taken=other.getsockname()[1]).split()
        line = ["igla", "gate", "serve", "--config", "gate.yaml", "--port", "0", *named]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["gate.yaml"]
