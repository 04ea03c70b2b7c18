"""What is too much, what is wrong, and the end of a server."""

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from igla.errors import UserError
from igla.serve.models import open_model
from igla.serve.protocols.perspective import sentences
from igla.serve.scoring import combined

ANALYZE = "/v1alpha1/comments:analyze"


def infer_body(**changes: object) -> bytes:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]} | changes
    return json.dumps({"inputs": [tensor]}).encode()


WRONG = [
    (ANALYZE, b"{", 400),
    (ANALYZE, b"[]", 400),
    (ANALYZE, b"\xff\xfe", 400),
    (ANALYZE, b"[" * 100_000, 400),
    (ANALYZE, b'{"comment": {"text": "\\ud800"}, "requestedAttributes": {"TOXICITY": {}}}', 400),
    (ANALYZE, b'{"comment": {"text": " \\n "}, "requestedAttributes": {"TOXICITY": {}}}', 400),
    (ANALYZE, b'{"comment": {"text": "a"}, "requestedAttributes": {}}', 400),
    (ANALYZE, b'{"comment": {"text": 7}, "requestedAttributes": {"TOXICITY": {}}}', 400),
    ("/v1/moderations", b'{"input": []}', 400),
    ("/v1/moderations", b'{"input": "\\ud800"}', 400),
    ("/v1/embeddings", b'{"input": ["\\udc00\\ud800"]}', 400),
    ("/predict", b'{"inputs": "a\\ud83d"}', 422),
    ("/embed", b'{"inputs": "\\udfff"}', 422),
    ("/igla/v1/score", b'{"texts": ["\\ud83d"]}', 400),
    ("/igla/v1/explain", b'{"text": "\\ud83d"}', 400),
    ("/v1/moderations", b'{"input": [["a"]]}', 400),
    ("/predict", b'{"inputs": [["a", "b", "c"]]}', 422),
    ("/predict", b'{"inputs": ["a", ["b"]]}', 422),
    ("/predict", json.dumps({"inputs": [["a"]] * 33}).encode(), 413),
    ("/predict", b'{"inputs": "' + b"a" * 300_000 + b'"}', 413),
    ("/v2/models/default/infer", b"{}", 400),
    ("/v2/models/default/infer", infer_body()[:-1] + b', "id": "\\ud83d"}', 400),
    ("/v2/models/default/infer", infer_body(shape=[2]), 400),
    ("/v2/models/default/infer", infer_body(datatype="FP32"), 400),
    ("/v2/models/default/infer", infer_body(name="image"), 400),
    ("/v2/models/default/infer", infer_body(shape=[-1, -1]), 400),
    ("/v2/models/default/infer", infer_body(shape=[2**63] * 8), 400),
    ("/v2/models/other/infer", b"{}", 404),
    (ANALYZE, b'{"comment": {"text": "a"}, "requestedAttributes": {"\\ud800": {}}}', 400),
    (ANALYZE, b'{"comment": {"text": null}, "requestedAttributes": {"TOXICITY": {}}}', 400),
    ("/v1alpha1/comments:analyse", b"{}", 404),
    ("/v1/completion", b"{}", 404),
    ("/v2/health/live", b"{}", 405),
    ("/nothing", b"{}", 404),
]


@pytest.mark.parametrize(("path", "body", "status"), WRONG)
def test_what_is_wrong_is_said_in_the_protocols_shape(
    path: str, body: bytes, status: int, server: str
) -> None:
    answer = httpx.post(server + path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert isinstance(error, dict if path.startswith("/v1") else str)
    message = error if isinstance(error, str) else error["message"]
    assert len(message) > 10 and "\n" not in message and "Value error" not in message


def test_null_stands_for_what_is_not_given(server: str) -> None:
    body = {
        "comment": {"text": "Спасибо", "type": None},
        "requestedAttributes": {"TOXICITY": {"scoreThreshold": None}},
        "languages": None,
        "doNotStore": None,
        "spanAnnotations": None,
    }
    answer = httpx.post(server + ANALYZE, json=body)
    assert answer.status_code == 200, answer.text
    assert "TOXICITY" in answer.json()["attributeScores"]


def test_a_body_of_no_kind_is_json_unless_a_browser_sends_it(server: str) -> None:
    body = json.dumps({"inputs": "Спасибо"}).encode()
    assert httpx.post(f"{server}/predict", content=body).status_code == 200
    foreign = {"origin": "https://example.org"}
    assert httpx.post(f"{server}/predict", content=body, headers=foreign).status_code == 422


@pytest.mark.parametrize("path", ["/", "/health", "/v2/health/ready", "/metrics"])
def test_head_is_answered_as_get_without_a_body(path: str, server: str) -> None:
    head, get = httpx.head(server + path), httpx.get(server + path)
    assert head.status_code == get.status_code == 200
    assert head.headers.get("content-type") == get.headers.get("content-type")
    assert head.content == b""


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n\n", "😀😀", "\u200b\u200d\ufeff", "e" + "\u0301" * 5000),
        *("\u202eабв", "\x00\x01", "слово " * 3000),
    ],
)
def test_any_text_is_scored(text: str, server: str) -> None:
    answer = httpx.post(f"{server}/predict", json={"inputs": text}, timeout=30)
    assert answer.status_code == 200
    assert sum(one["score"] for one in answer.json()) == pytest.approx(1)


def test_a_long_text_is_as_bad_as_its_worst_window(server: str) -> None:
    kind, rude = "добрый дом " * 200, "глупый гадкий мерзкий дом "
    scores = {
        name: next(one["score"] for one in answer.json() if one["label"] == "rude")
        for name, text in {"kind": kind, "both": kind + rude * 20 + kind}.items()
        if (answer := httpx.post(f"{server}/predict", json={"inputs": text}, timeout=30))
    }
    assert scores["both"] > 0.9 > 0.5 > scores["kind"]
    cut = httpx.post(f"{server}/predict", json={"inputs": kind + rude * 20, "truncate": True})
    assert cut.json()[0]["label"] == "kind"


def test_spans_are_counted_in_utf_16(server: str) -> None:
    text = "Дом 😀 добрый! Ты глупый, гадкий."
    asked = {"comment": {"text": text}, "requestedAttributes": {"TOXICITY": {}}}
    answer = httpx.post(server + ANALYZE, json=asked | {"spanAnnotations": True}).json()
    spans = answer["attributeScores"]["TOXICITY"]["spanScores"]
    units = text.encode("utf-16-le")
    found = [units[2 * one["begin"] : 2 * one["end"]].decode("utf-16-le") for one in spans]
    assert found == ["Дом 😀 добрый!", "Ты глупый, гадкий."]
    assert spans[0]["score"]["value"] < spans[1]["score"]["value"]


def test_below_the_asked_threshold_no_score_is_given(server: str) -> None:
    asked = {"comment": {"text": "добрый дом"}}
    answer = httpx.post(
        server + ANALYZE,
        json=asked | {"requestedAttributes": {"TOXICITY": {"scoreThreshold": 0.9}}},
    )
    assert answer.json()["attributeScores"] == {}


@pytest.mark.parametrize("seed", range(20))
def test_sentences_cover_all_but_the_spaces(seed: int) -> None:
    chance = random.Random(seed)
    text = "".join(chance.choice("аб.! ?\n…") for _ in range(chance.randint(1, 80)))
    found = sentences(text, 5)
    assert len(found) <= 5
    assert all(start < end for start, end in found)
    assert all(one[1] <= other[0] for one, other in pairwise(found))
    if text.strip():
        covered = "".join(text[start:end] for start, end in found)
        assert covered.replace(" ", "").replace("\n", "") == "".join(text.split())


@pytest.mark.parametrize("attempt", range(3))
def test_after_sigterm_what_was_accepted_is_answered(
    attempt: int, serve: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("limits: {waiting_tokens: 10000000}\n", encoding="utf-8")
    body = {"inputs": "глупый дом и добрый человек " * 800}

    async def ask(running: Any) -> list[int]:
        async with httpx.AsyncClient(timeout=60) as client:
            url = f"{running.address}/predict"
            asked = [asyncio.ensure_future(client.post(url, json=body)) for _ in range(64)]
            while sum(one.done() for one in asked) < 1 + 16 * attempt:
                await asyncio.sleep(0.005)
            running.process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*asked)
        return [answer.status_code for answer in answers]

    with serve(str(trained), "--config", str(config)) as running:
        statuses = asyncio.run(ask(running))
        running.process.wait(timeout=30)
    # No connection was cut: what had not been taken yet was told so.
    assert set(statuses) <= {200, 503}
    assert 200 in statuses


def test_a_full_queue_is_said_at_once(
    serve: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("limits: {waiting_tokens: 12000}\n", encoding="utf-8")
    body = {"inputs": "глупый дом и добрый человек " * 800}

    async def ask(address: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as client:
            asked = [client.post(f"{address}/predict", json=body) for _ in range(40)]
            return list(await asyncio.gather(*asked))

    with serve(str(trained), "--config", str(config)) as running:
        answers = asyncio.run(ask(running.address))
        found = {answer.status_code for answer in answers}
        assert found == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error_type"] == "Overloaded"
        counted = httpx.get(f"{running.address}/metrics").text
        assert 'igla_requests_total{route="/predict",status="429"}' in counted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("limits: {inputs: 0}", "limits.inputs"),
        ("colour: red", "colour"),
        ("attributes: {INSULT: angry}", "no model has the class angry; there are kind, rude"),
        ("categories: {insult: rude}", "OpenAI has no such category"),
        ("limits: {seconds: .inf}", "limits.seconds"),
        ("decisions: {rude: {review: 0.95}}", "decisions.rude: review is above block."),
        ("{", "not YAML"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_config_is_refused_in_one_sentence(
    content: str | None, said: str, trained: Path, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    if content is not None:
        config.write_text(content, encoding="utf-8")
    words = [sys.executable, "-m", "igla", "serve", str(trained), "--config", str(config)]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 2
    assert said in ended.stderr and "Traceback" not in ended.stderr


def test_two_models_are_told_apart_by_their_names(serve: Callable[..., Any], trained: Path) -> None:
    with serve(f"one={trained}", f"two={trained}") as running:
        for name in ("one", "two"):
            told = httpx.get(f"{running.address}/v2/models/{name}").json()
            assert told["name"] == name
            assert httpx.get(f"{running.address}/v2/models/{name}/ready").status_code == 200
        answer = httpx.post(
            f"{running.address}/v1/moderations", json={"input": "a", "model": "two"}
        )
        assert answer.headers["x-igla-version"].startswith("two/")
    words = [sys.executable, "-m", "igla", "serve", str(trained), str(trained)]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 2 and "same name" in ended.stderr


def test_a_row_of_dots_is_split_at_once() -> None:
    text = "a" + "." * 100_000 + "a"
    start = time.perf_counter()
    assert sentences(text, 31) == [(0, len(text))]
    assert time.perf_counter() - start < 5  # one look back for each dot would take minutes
    assert sentences("Да... Нет?! " * 3, 31)[:2] == [(0, 5), (6, 11)]


@pytest.mark.parametrize("length", ["9" * 5000, "²", "-1", "1.5"])
def test_a_wrong_length_of_the_header_is_refused(length: str, server: str) -> None:
    headers = [(b"inference-header-content-length", length.encode())]
    answer = httpx.post(f"{server}/v2/models/default/infer", content=b"{}", headers=headers)
    assert answer.status_code == 400 and "does not fit" in answer.json()["error"]


def test_a_body_that_does_not_come_is_not_waited_for(
    serve: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("limits: {seconds: 1}\n", encoding="utf-8")
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf"
    with serve(str(trained), "--config", str(config)) as running:
        port = int(running.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
            one.sendall(head)
            assert one.recv(1000).startswith(b"HTTP/1.1 408")
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(head)
        told = ""
        until = time.monotonic() + 20
        while 'status="499"' not in told:
            assert time.monotonic() < until, told
            told = httpx.get(f"{running.address}/metrics").text


def test_beyond_the_requests_in_hand_others_are_refused_unparsed(
    serve: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("limits: {requests: 1}\n", encoding="utf-8")
    body = {"inputs": "глупый дом и добрый человек " * 800}

    async def ask(address: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as client:
            asked = [
                client.post(f"{address}{path}", json=body) for path in ("/predict", ANALYZE) * 20
            ]
            health = [client.get(f"{address}/health") for _ in range(20)]
            answers = await asyncio.gather(*asked, *health)
        assert all(answer.status_code == 200 for answer in answers[40:])
        return list(answers[:40])

    with serve(str(trained), "--config", str(config)) as running:
        answers = asyncio.run(ask(running.address))
        assert httpx.post(f"{running.address}/predict", json={"inputs": "a"}).status_code == 200
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused and any(answer.status_code == 200 for answer in answers[::2])
    assert {"in hand" in answer.text for answer in refused} == {True}
    assert {int(answer.headers["retry-after"]) for answer in refused} == {1}
    assert {"error_type" in answer.json() for answer in refused} == {True, False}


def test_more_than_the_queue_holds_is_refused_for_good(
    serve: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("limits: {waiting_tokens: 500}\n", encoding="utf-8")
    with serve(str(trained), "--config", str(config)) as running:
        long = httpx.post(f"{running.address}/predict", json={"inputs": "дом " * 5000})
        short = httpx.post(f"{running.address}/predict", json={"inputs": "дом"})
        why = httpx.post(
            f"{running.address}/igla/v1/explain",
            json={"text": "дом " * 5000, "method": "occlusion"},
        )
    # Three quarters of the queue: some room is always left for others.
    assert long.status_code == 413 and "375 are the most" in long.json()["error"]
    assert short.status_code == 200
    assert why.status_code == 413


@pytest.mark.parametrize("name", ["спам", "a b", "a\r\nx: y", ""])
def test_a_name_that_no_header_can_hold_is_refused(name: str, trained: Path) -> None:
    with pytest.raises(UserError, match="no name for a model"):
        open_model(trained, name)


def test_a_long_text_is_searched_for_the_grave_class_wherever_it_stands() -> None:
    hate = np.array([0.02, 0.97, 0.01])
    both = np.stack([hate, 1 - hate], axis=1)
    for grave, rows in ((0, both), (1, both[:, ::-1])):
        probabilities, logits = combined(np.log(rows), rows, grave, multi_label=False)
        assert probabilities[grave] == 0.97
        assert logits[grave] == np.log(0.97)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "onnx"], "engine onnx is for decoders, and none of the models is one"),
        (["--window", "4"], "there is no window to set"),
    ],
)
def test_what_is_for_decoders_is_refused_without_one(
    words: list[str], said: str, trained: Path
) -> None:
    command = [sys.executable, "-m", "igla", "serve", str(trained), *words]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and said in ended.stderr
