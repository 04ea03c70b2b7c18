"""Logs, https, and an address that is taken."""

import gc
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from igla.serve.early import begin, settle
from igla.serve.keys import add_key
from igla.serve.language import detect

SECRET = "тайное слово"


def logged(running: Any) -> list[dict[str, Any]]:
    running.said.seek(0)
    lines = running.said.read().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def asked(text: str, do_not_store: bool) -> dict[str, Any]:
    wanted = {"TOXICITY": {}}
    return {"comment": {"text": text}, "requestedAttributes": wanted, "doNotStore": do_not_store}


def test_what_serving_does_not_need_is_not_imported() -> None:
    code = (
        "import igla.serve.command, sys; "
        "print(sorted({'scipy', 'sklearn', 'sympy', 'pyarrow', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_opening_a_model_draws_nothing_at_random(trained: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from igla.model.folder import *; "
        "before = torch.get_rng_state(); "
        f"load_classifier(Path({str(trained / 'model')!r})); "
        f"load_encoder(Path({str(trained / 'model')!r})); "
        "print(torch.equal(before, torch.get_rng_state()), 'sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_cycles_are_not_searched_for_until_a_server_is_ready() -> None:
    begin()
    try:
        assert not gc.isenabled()
    finally:
        settle()
    assert gc.isenabled() and gc.get_freeze_count() > 100_000
    gc.unfreeze()
    assert detect("Как дела, друзья?") == "ru"


@pytest.mark.parametrize("texts", [False, True])
def test_a_line_a_request_and_no_text_unless_it_is_switched_on(
    texts: bool, serve: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    config, keys = tmp_path / "serve.yaml", tmp_path / "keys.json"
    config.write_text(f"log: {{texts: {str(texts).lower()}}}\n", encoding="utf-8")
    key = add_key(keys, "forum", ("score",), None)
    with serve(str(trained), "--config", str(config), "--keys", str(keys)) as running:
        address = f"{running.address}/v1alpha1/comments:analyze"
        for do_not_store in (False, True):
            httpx.post(f"{address}?key={key}", json=asked(SECRET, do_not_store))
        httpx.post(f"{address}?key=wrong", json=asked(SECRET, False))
        version = httpx.get(f"{running.address}/info").json()["model_sha"]
        lines = [line for line in logged(running) if line["method"] == "POST"]
        running.said.seek(0)
        everything = running.said.read()
    assert [line["status"] for line in lines] == [200, 200, 401]
    first = lines[0]
    assert first["route"] == "/v1alpha1/comments:analyze" and first["key"] == "forum"
    assert (first["model"], first["version"], first["inputs"]) == ("default", version, 1)
    assert first["ms"] > 0
    assert key not in everything
    assert [line.get("texts") for line in lines[:2]] == [[SECRET] if texts else None, None]
    assert everything.count(SECRET) == (1 if texts else 0)


def test_https(serve: Callable[..., Any], trained: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, root = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(root)
    words = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    with serve(str(trained), *words) as running:
        assert running.address.startswith("https:")
        trust = ssl.create_default_context(cafile=str(root))
        assert httpx.get(f"{running.address}/health", verify=trust).status_code == 200


def refused(*words: str) -> str:
    command = [sys.executable, "-m", "igla", "serve", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_wrong_words_are_one_sentence(trained: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "Address already in use" in refused(str(trained), "--port", port)
    for host in ("256.1.1.1", "a..b"):
        assert "cannot be listened at" in refused(str(trained), "--host", host)
    assert "go together" in refused(str(trained), "--tls-key", "key.pem")
    nothing = tmp_path / "nothing.pem"
    words = ["--tls-certificate", str(nothing), "--tls-key", str(nothing)]
    assert "There is no file" in refused(str(trained), *words)
    nothing.write_text("nothing", encoding="utf-8")
    assert "no certificate with its key" in refused(str(trained), *words)
