"""A server that learns: versions swapped while it answers."""

import asyncio
import io
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import APIRouter

from igla.gate.home import Home
from igla.gate.log import Feedback, GateLog
from igla.gate.swapping import Swapping, open_version
from igla.serve.keys import add_key

CONFIG = """
learner:
  learning: {count: 100, learning_rate: 0.005, epochs: 5, fisher_rows: 32, niceness: 10}
"""
TEXTS = ["няшный дом", "токсичный дом", "добрый день", "гадкий человек"]
Slang = Callable[..., list[Feedback]]


class Teaching:
    """A server that learns, and what speaks to it."""

    def __init__(self, address: str, home: Home, log: str, admin: str, forum: str):
        self.home = home
        self.log = log
        self.admin = httpx.Client(base_url=address, headers={"x-api-key": admin}, timeout=30)
        self.forum = httpx.Client(base_url=address, headers={"x-api-key": forum}, timeout=30)

    def give(self, feedback: list[Feedback]) -> None:
        for one in feedback:
            body = {"text": one.text, "outcome": one.outcome, "who": one.who}
            assert self.forum.post("/v1/gate/feedback", json=body).status_code == 200

    def versions(self) -> dict[str, Any]:
        return dict(self.admin.get("/v1/gate/versions").json())

    def decide(self, text: str) -> dict[str, Any]:
        answer = self.forum.post("/v1/gate/decide", json={"text": text})
        assert answer.status_code == 200, answer.text
        found = dict(answer.json())
        assert answer.headers["x-igla-version"] == f"default/{found['version']}"
        return found

    def until(self, condition: Callable[[], Any], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.versions()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def teaching(
    serve_gate: Callable[..., Any], run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Teaching]:
    folder = tmp_path_factory.mktemp("teaching")
    (folder / "gate.yaml").write_text(CONFIG, encoding="utf-8")
    keys = folder / "keys.json"
    admin = add_key(keys, "admin", ("score", "feedback", "admin"), None)
    forum = add_key(keys, "forum", ("score", "feedback"), None)
    log = f"sqlite:///{folder}/gate.db"
    words = ["--log", log, "--learn", str(folder / "gate")]
    words += ["--config", str(folder / "gate.yaml"), "--keys", str(keys)]
    with serve_gate(str(run), *words) as running:
        found = Teaching(running.address, Home(folder / "gate"), log, admin, forum)
        yield found
        found.admin.close()
        found.forum.close()
        pid = found.home.status.read_text().split('"pid": ')[1].split(",")[0]
    assert not Path(f"/proc/{pid}").exists()  # the learner ends with its server


def test_a_version_is_swapped_in_by_itself_while_the_server_answers(
    teaching: Teaching, slang: Slang
) -> None:
    assert teaching.decide(TEXTS[0])["version"] == "v0001"
    stop, seen, failed = threading.Event(), set[tuple[str, str, float]](), list[Exception]()

    def ask() -> None:
        while not stop.is_set():
            for text in TEXTS:
                try:
                    found = teaching.decide(text)
                except Exception as error:
                    failed.append(error)
                    return
                seen.add((found["version"], text, round(found["probability"], 5)))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for one in asking:
        one.start()
    try:
        teaching.give(slang(120))
        teaching.until(lambda: teaching.versions()["serving"]["name"] == "v0002")
        teaching.until(
            lambda: {text for version, text, _ in list(seen) if version == "v0002"} == {*TEXTS}
        )
    finally:
        stop.set()
        for one in asking:
            one.join()
    assert not failed
    # Each answer is that of the version which it names.
    for version in ("v0001", "v0002"):
        served = open_version(teaching.home, version, "default", "float32")
        expected = 1 - served.classifier.probabilities(TEXTS)[:, 1]
        told = {(text, value) for name, text, value in seen if name == version}
        assert {text for text, _ in told} == set(TEXTS)
        for text, value in told:
            assert value == pytest.approx(expected[TEXTS.index(text)], abs=2e-5)
    newest = teaching.versions()["versions"][0]
    assert newest["version"] == "v0002" and newest["reason"].startswith("passed")
    assert newest["figures"]["learned"] + newest["figures"]["judged"] == 120


def test_prometheus_is_told_what_serves_and_how_the_learner_is(teaching: Teaching) -> None:
    teaching.until(lambda: 'igla_gate_serving{version="v0002"} 1.0' in figures(teaching))
    told = figures(teaching)
    assert "igla_gate_swaps_total 1.0" in told and "igla_gate_learner_up 1.0" in told
    assert 'igla_gate_drift_alert{of="scores"} 0.0' in told


def test_the_alerts_of_a_gate_ask_for_what_it_tells(teaching: Teaching) -> None:
    file = Path(__file__).parents[2] / "deploy" / "alerts.yaml"
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    [rules] = [group["rules"] for group in groups if group["name"] == "igla-gate"]
    assert all(rule["alert"] and rule["annotations"]["summary"] for rule in rules)
    named = {name for rule in rules for name in re.findall(r"\bigla_[a-z_]+", rule["expr"])}
    told = set(re.findall(r"^# TYPE (\w+) ", figures(teaching), re.MULTILINE))
    assert "igla_gate_drift_alert" in named <= told
    assert all(rule["expr"].count("(") == rule["expr"].count(")") for rule in rules)


def figures(teaching: Teaching) -> str:
    return teaching.admin.get("/metrics").text


def test_rollback_answers_when_the_former_version_serves(teaching: Teaching) -> None:
    assert teaching.forum.post("/v1/gate/rollback", json={}).status_code == 403
    took = []
    for _ in range(3):  # of which one finds the processor free
        start = time.perf_counter()
        answer = teaching.admin.post("/v1/gate/rollback", json={})
        took.append(time.perf_counter() - start)
        assert answer.json() == {"serving": "v0001"}
        assert teaching.decide(TEXTS[0])["version"] == "v0001"
        if min(took) < 1:
            break
        teaching.admin.post("/v1/gate/promote", json={"version": "v0002"})
    assert min(took) < 1
    again = teaching.admin.post("/v1/gate/rollback", json={})
    assert again.status_code == 409 and "first version" in again.json()["error"]
    none = teaching.admin.post("/v1/gate/promote", json={"version": "v0009"})
    assert none.status_code == 409 and "there are v0001, v0002" in none.json()["error"]
    assert teaching.admin.post("/v1/gate/promote", json={"version": "v0002"}).status_code == 200
    assert teaching.decide(TEXTS[0])["version"] == "v0002"


def test_a_second_version_answers_a_sticky_share_and_is_compared(
    teaching: Teaching, slang: Slang
) -> None:
    admin, people = teaching.admin, [f"person {number}" for number in range(40)]

    def versions_of() -> dict[str, str]:
        answers = {
            one: teaching.forum.post("/v1/gate/decide", json={"text": "дом", "subject": one}).json()
            for one in people
        }
        return {one: found["version"] for one, found in answers.items()}

    wrong = admin.post("/v1/gate/compare", json={"version": "v0002", "share": 0.5})
    assert wrong.status_code == 409 and "v0002 serves" in wrong.json()["error"]
    assert admin.post("/v1/gate/rollback", json={}).status_code == 200
    begun = admin.post("/v1/gate/compare", json={"version": "v0002", "share": 0.5})
    assert begun.json()["first"] == "v0001" and begun.json()["second"] == "v0002"
    first = versions_of()
    assert set(first.values()) == {"v0001", "v0002"} and versions_of() == first
    named = {"text": "дом", "subject": people[0], "version": "v0001"}
    for _ in range(3):
        assert teaching.forum.post("/v1/gate/decide", json=named).json()["version"] == "v0001"
    teaching.give(slang(60, seed=7))
    teaching.until(
        lambda: (teaching.versions()["learner"].get("comparison") or {}).get("decisions") == 60
    )
    found = teaching.versions()["learner"]["comparison"]
    assert found["only_second_right"] > found["only_first_right"]
    assert found["recommendation"].startswith("let v0002 serve")
    assert admin.delete("/v1/gate/compare").status_code == 200
    assert set(versions_of().values()) == {"v0001"}
    assert admin.post("/v1/gate/promote", json={"version": "v0002"}).status_code == 200
    assert admin.post("/v1/gate/learn").json() == {"asked": True}
    with closing(GateLog(teaching.log)) as log:
        begun, ended, _, asked = [one for one in log.audit() if one.actor == "admin"][-4:]
    compared = {"first": "v0001", "second": "v0002"}
    assert (begun.event, begun.facts) == ("comparison_begun", {**compared, "share": 0.5})
    assert (ended.event, ended.facts) == ("comparison_ended", compared)
    assert (asked.event, asked.facts) == ("round_asked", {})


def test_a_slice_is_retired_by_who_has_a_key_for_it(teaching: Teaching) -> None:
    asked = {"slice": "up to 5 words"}
    assert teaching.forum.post("/v1/gate/retire", json=asked).status_code == 403
    told = teaching.admin.post("/v1/gate/retire", json=asked).json()
    assert told["retired"] and told["rows"]["holdout"] > 0
    assert [*teaching.versions()["retired"]] == [asked["slice"]]
    undone = teaching.admin.post("/v1/gate/retire", json=asked | {"undo": True})
    assert undone.json() == {"retired": False} and not teaching.versions()["retired"]
    none = teaching.admin.post("/v1/gate/retire", json={"slice": "shop"})
    assert none.status_code == 409 and "There is no slice shop" in none.json()["error"]


def test_a_learner_that_was_killed_is_started_again(teaching: Teaching) -> None:
    teaching.until(lambda: teaching.versions()["learner"]["running"])
    pid = teaching.versions()["learner"]["pid"]
    os.kill(pid, signal.SIGKILL)
    teaching.until(lambda: teaching.versions()["learner"]["pid"] != pid)
    assert teaching.versions()["learner"]["running"]


def test_a_folder_that_cannot_be_written_is_told_of_and_nothing_changes(teaching: Teaching) -> None:
    serving, lock = teaching.home.versions.serving().name, teaching.home.versions.folder / ".lock"
    lock.unlink()
    lock.mkdir()
    try:
        answer = teaching.admin.post("/v1/gate/rollback", json={})
        assert answer.status_code == 503 and "cannot be written" in answer.json()["error"]
        assert teaching.decide(TEXTS[0])["version"] == serving
    finally:
        lock.rmdir()


def test_a_torn_version_is_told_of_and_the_old_one_answers(teaching: Teaching) -> None:
    weights = teaching.home.versions.path("v0001") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    try:
        answer = teaching.admin.post("/v1/gate/rollback", json={})
        assert answer.status_code == 409 and "damaged" in answer.json()["error"]
        assert teaching.decide(TEXTS[0])["version"] == "v0002"
    finally:
        weights.write_bytes(whole)


def test_damaged_notes_of_a_gate_are_told_of_and_it_goes_on_answering(teaching: Teaching) -> None:
    pointer = teaching.home.versions.folder / "serving.json"
    serving = teaching.home.versions.serving().name
    for file in (pointer, teaching.home.retired):
        file.write_text("[1")
        told = teaching.admin.get("/v1/gate/versions")
        assert told.status_code == 503 and f"{file} is damaged" in told.json()["error"]
        assert teaching.decide(TEXTS[0])["version"] == serving
        if file == pointer:
            refused = teaching.admin.post("/v1/gate/rollback", json={})
            assert refused.status_code == 503 and "igla gate promote" in refused.json()["error"]
            mended = teaching.admin.post("/v1/gate/promote", json={"version": serving})
            assert mended.json() == {"serving": serving}
        else:
            file.unlink()
        assert teaching.versions()["serving"]["name"] == serving
    teaching.home.status.write_text("[1]")
    teaching.until(lambda: teaching.versions()["learner"].get("pid"))


class EndsWhenKilled:
    """A learner's process that ends between the moment it is given up and the kill."""

    returncode = None
    stdin = io.BytesIO()

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def kill(self) -> None:
        self.ended.set()
        raise ProcessLookupError

    async def wait(self) -> None:
        await self.ended.wait()


def test_a_learner_that_ends_just_before_it_is_killed_fails_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igla.gate.swapping._GRACE", 0.01)
    swapping = Swapping(Home(tmp_path), "default", "float32", None, APIRouter())

    async def close() -> None:
        process = EndsWhenKilled()
        monkeypatch.setattr(swapping, "_process", process)
        await swapping.close()
        assert process.ended.is_set()

    asyncio.run(close())
