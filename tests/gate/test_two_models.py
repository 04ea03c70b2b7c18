"""A gate that learns with one of two models that its server holds."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from igla.serve.keys import add_key


@contextmanager
def within(seconds: float) -> Iterator[Callable[[], None]]:
    end = time.monotonic() + seconds

    def wait() -> None:
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(0.05)

    yield wait


@pytest.fixture(scope="module")
def two(
    serve_gate: Callable[..., Any], run: Path, trained: Path, tmp_path_factory: Any
) -> Iterator[Any]:
    """A server whose first model learns, and what asks it."""
    folder = tmp_path_factory.mktemp("two")
    keys = folder / "keys.json"
    headers = {"x-api-key": add_key(keys, "admin", ("score", "feedback", "admin"), None)}
    words = ["--log", f"sqlite:///{folder}/gate.db", "--learn", str(folder / "gate")]
    with (
        serve_gate(f"first={run}", f"spam={trained}", *words, "--keys", str(keys)) as running,
        httpx.Client(base_url=running.address, headers=headers, timeout=60) as client,
    ):
        yield running, client


def test_only_what_is_said_of_the_model_that_learns_is_new_to_it(two: Any) -> None:
    _, client = two
    for model, count in (("spam", 4), ("first", 2)):
        for number in range(count):
            text = {"text": f"дом {number}", "model": model}
            decision = client.post("/v1/gate/decide", json=text).json()["decision"]
            said = {"decision": decision, "outcome": "override_block", "who": "anna"}
            assert client.post("/v1/gate/feedback", json=said).status_code == 200
    for text in ({"text": "сад"}, {"text": "сад", "model": "spam"}):
        said = {"outcome": "confirmed_allow", "who": "anna", **text}
        assert client.post("/v1/gate/feedback", json=said).status_code == 200
    with within(60) as wait:
        while (learner := client.get("/v1/gate/versions").json()["learner"]).get("new") != 3:
            wait()
    assert learner["alignment"]["heard"] == 3


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/igla/v1/models/{}/load", {"folder": "elsewhere"}),
        ("/v2/repository/models/{}/load", {"parameters": {"folder": "elsewhere"}}),
    ],
)
def test_the_model_that_learns_is_loaded_by_its_gate_alone(
    two: Any, path: str, folder: dict[str, Any]
) -> None:
    _, client = two
    for content in ({}, folder):
        refused = client.post(path.format("first"), json=content)
        assert refused.status_code == 409 and "The gate decides" in refused.text, refused.text
    assert client.post(path.format("spam"), json={}).status_code == 200
    unloaded = path.replace("/load", "/unload").format("first")
    refused = client.post(unloaded, json={})
    assert refused.status_code == 409 and "igla gate rollback" in refused.text
    decided = client.post("/v1/gate/decide", json={"text": "дом"}).json()
    assert (decided["model"], decided["version"]) == ("first", "v0001")


def test_sighup_leaves_the_model_that_learns_and_says_so(two: Any) -> None:
    running, client = two
    running.process.send_signal(signal.SIGHUP)
    with within(60) as wait:
        while "model spam" not in (said := told(running).split("http://")[-1]):
            wait()
    assert "model first is not loaded anew: The gate decides which version of first serves" in said
    decided = client.post("/v1/gate/decide", json={"text": "дом"}).json()
    assert decided["version"] == "v0001"


def told(running: Any) -> str:
    running.said.seek(0)
    return str(running.said.read())
