"""Perspective's comments:suggestscore, with and without somebody who keeps what is suggested."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from igla.serve.app import create_app
from igla.serve.keys import Doorkeeper, add_key
from igla.serve.models import open_model
from igla.serve.settings import Settings
from igla.serve.suggestions import NotKept, Suggestion

PATH = "/v1alpha1/comments:suggestscore"
ASKED = {
    "comment": {"text": "глупый дом"},
    "attributeScores": {"TOXICITY": {"summaryScore": {"value": 1}}},
    "clientToken": "17",
}


class Kept:
    """Keeps suggestions in a list, or says why not."""

    def __init__(self) -> None:
        self.all: list[Suggestion] = []
        self.fault: str | None = None

    async def record(self, suggestion: Suggestion) -> None:
        if self.fault is not None:
            raise NotKept(self.fault)
        self.all.append(suggestion)


@pytest.fixture(scope="module")
def serving(trained: Path, in_process: Callable[..., Any]) -> Callable[..., Any]:
    """Starts servers whose suggestions are kept."""
    served = open_model(trained, "default", "float32")

    def start(kept: Kept, keys: Doorkeeper | None = None, **settings: Any) -> Any:
        told = Settings.model_validate({"log": {"requests": False}} | settings)
        return in_process(create_app([served], told, keys, kept))

    return start


def test_googles_client_suggests_a_score(serving: Callable[..., Any]) -> None:
    kept = Kept()
    with (
        serving(kept) as address,
        build(
            *("commentanalyzer", "v1alpha1"),
            developerKey="key",
            discoveryServiceUrl=f"{address}/$discovery/rest?version=v1alpha1",
            static_discovery=False,
        ) as client,
    ):
        asked = ASKED | {"languages": ["en"], "communityId": "forum", "sessionId": "5"}
        answer = client.comments().suggestscore(body=asked).execute()
        version = httpx.get(f"{address}/info").json()["model_sha"]
        kept.fault = "The disk is full."
        with pytest.raises(HttpError) as refused:
            client.comments().suggestscore(body=asked).execute()
    assert answer == {
        "clientToken": "17",
        "detectedLanguages": ["ru"],
        "requestedLanguages": ["en"],
    }
    assert kept.all == [
        Suggestion(
            text="глупый дом",
            scores={"rude": 1.0},
            model="default",
            version=version,
            by=None,
            community="forum",
            session="5",
            client_token="17",
            languages=("en",),
        )
    ]
    assert refused.value.status_code == 503 and "disk is full" in refused.value.reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"comment": {"text": " \n"}}, "non-empty"),
        ({"comment": {}}, "comment.text"),
        ({"attributeScores": {}}, "attributeScores"),
        ({"attributeScores": {"FUN": {"summaryScore": {"value": 1}}}}, "FUN"),
        ({"attributeScores": {"TOXICITY": {"spanScores": []}}}, "summaryScore"),
        ({"attributeScores": {"TOXICITY": {"summaryScore": {"value": 1.5}}}}, "value"),
        ({"attributeScores": {"TOXICITY": {"summaryScore": {"value": "x"}}}}, "value"),
        (
            {"attributeScores": {"TOXICITY": {"summaryScore": {"value": 1, "type": "COLOUR"}}}},
            "COLOUR",
        ),
        (
            {
                "attributeScores": {
                    "TOXICITY": {"summaryScore": {"value": 1}},
                    "INSULT": {"summaryScore": {"value": 0}},
                }
            },
            "INSULT contradicts",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    changes: dict[str, Any], said: str, wide_open: tuple[str, Kept]
) -> None:
    address, kept = wide_open
    answer = httpx.post(address + PATH, json=ASKED | changes)
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == 400, answer.text
    assert error["status"] == "INVALID_ARGUMENT" and said in error["message"]
    assert kept.all == []


@pytest.fixture(scope="module")
def wide_open(serving: Callable[..., Any]) -> Iterator[tuple[str, Kept]]:
    """A server that keeps what anybody suggests, by two names for one class."""
    kept = Kept()
    attributes = {"TOXICITY": "rude", "INSULT": "rude"}
    with serving(kept, attributes=attributes) as address:
        yield address, kept


def test_only_a_key_for_feedback_may_suggest(serving: Callable[..., Any], tmp_path: Path) -> None:
    file, kept = tmp_path / "keys.json", Kept()
    scoring = add_key(file, "reader", ("score",), None)
    feedback = add_key(file, "moderator", ("feedback",), None)
    with serving(kept, keys=Doorkeeper(file)) as address:
        statuses = [
            httpx.post(address + PATH, json=ASKED, params={"key": key}).status_code
            for key in ("", scoring, feedback)
        ]
    assert statuses == [401, 403, 200]
    assert [one.by for one in kept.all] == ["moderator"]


def test_a_server_that_keeps_nothing_says_so(server: str) -> None:
    answer = httpx.post(server + PATH, json=ASKED)
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == 404 and error["status"] == "NOT_FOUND"
    assert "keeps no suggestions" in error["message"] and "igla gate serve" in error["message"]
