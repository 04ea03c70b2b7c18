"""Who may ask: the file of keys, what each allows, and a server that asks for them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from igla.errors import UserError
from igla.serve.keys import Denied, Doorkeeper, add_key, read_keys, revoke_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def status_of(door: Doorkeeper, key: str | None, scope: Any = "score") -> int:
    try:
        door.check(key, scope)
    except Denied as denied:
        return denied.status
    return 200


def test_a_key_opens_what_it_is_for_until_it_is_revoked(file: Path) -> None:
    key = add_key(file, "forum", ("score",), None)
    door = Doorkeeper(file)
    assert status_of(door, key) == 200
    assert status_of(door, key, "admin") == 403
    assert status_of(door, None) == status_of(door, key + "x") == status_of(door, "") == 401
    other = add_key(file, "ops", ("admin",), None)
    os.utime(file, ns=(1, 1))  # another time, however coarse the clock of the file system
    assert status_of(door, other, "admin") == 200
    revoke_key(file, "forum")
    assert status_of(door, key) == 401
    assert status_of(door, other, "admin") == 200


def test_of_a_key_only_its_hash_is_kept_and_for_the_owner_alone(file: Path) -> None:
    key = add_key(file, "forum", ("score",), 10)
    assert key not in file.read_text(encoding="utf-8")
    assert len(json.loads(file.read_text(encoding="utf-8"))[0]["digest"]) == 64
    assert file.stat().st_mode & 0o777 == 0o600


def test_so_many_requests_a_minute_and_no_more(file: Path) -> None:
    key, now = add_key(file, "forum", ("score",), 6), [0.0]
    door = Doorkeeper(file, lambda: now[0])
    assert [status_of(door, key) for _ in range(8)] == [200] * 6 + [429] * 2
    with pytest.raises(Denied) as denied:
        door.check(key, "score")
    assert denied.value.wait == pytest.approx(10)
    now[0] = 10.0
    assert [status_of(door, key) for _ in range(2)] == [200, 429]
    now[0] = 10_000.0
    assert [status_of(door, key) for _ in range(7)] == [200] * 6 + [429]


def test_a_broken_file_takes_no_key_away_from_a_running_server(file: Path) -> None:
    key = add_key(file, "forum", ("score",), None)
    door = Doorkeeper(file)
    file.write_text("[{", encoding="utf-8")
    assert status_of(door, key) == 200
    file.unlink()
    assert status_of(door, key) == 200


def test_wrong_use_is_refused_in_one_sentence(file: Path) -> None:
    with pytest.raises(UserError, match="no file of keys"):
        Doorkeeper(file)
    add_key(file, "forum", ("score",), None)
    with pytest.raises(UserError, match="already"):
        add_key(file, "forum", ("score",), None)
    with pytest.raises(UserError, match="no key named shop"):
        revoke_key(file, "shop")
    with pytest.raises(UserError, match="1 to 100"):
        add_key(file, "", ("score",), None)
    with pytest.raises(UserError, match="can be printed"):
        add_key(file, "forum\n", ("score",), None)
    with pytest.raises(UserError, match="no folder"):
        add_key(file.parent / "none" / "keys.json", "a", ("score",), None)
    file.write_text('[{"name": "a"}]', encoding="utf-8")
    with pytest.raises(UserError, match="no file of keys"):
        read_keys(file)
    file.write_text('[{"name": "a", "digest": "secret", "scopes": ["score"]}]', encoding="utf-8")
    with pytest.raises(UserError, match="no file of keys: 0.digest"):
        read_keys(file)


def test_a_server_asks_for_a_key_wherever_clients_put_it(
    serve: Callable[..., Any], trained: Path, file: Path
) -> None:
    words = [sys.executable, "-m", "igla", "keys", "add", "forum", "--file", str(file)]
    made = subprocess.run(words, check=True, capture_output=True, text=True)
    key = made.stdout.strip()
    assert key not in made.stderr
    asked = {"comment": {"text": "дом"}, "requestedAttributes": {"TOXICITY": {}}}
    with serve(str(trained), "--keys", str(file)) as running:
        url = f"{running.address}/v1alpha1/comments:analyze"
        refused = httpx.post(url, json=asked)
        assert refused.status_code == 401
        assert refused.json()["error"]["status"] == "UNAUTHENTICATED"
        assert httpx.post(url, json=asked, params={"key": key}).status_code == 200
        assert httpx.post(url, json=asked, headers={"x-api-key": key}).status_code == 200
        for one, right in ((key, True), ("wrong", False)):
            with openai.OpenAI(
                base_url=f"{running.address}/v1", api_key=one, max_retries=0
            ) as client:
                if right:
                    assert client.moderations.create(input="дом").results
                else:
                    with pytest.raises(openai.AuthenticationError):
                        client.moderations.create(input="дом")
        assert httpx.get(f"{running.address}/health").status_code == 200
