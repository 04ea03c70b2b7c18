"""The clients, against a server that loses answers."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from igla.gate.client import AsyncGateClient, GateClient, GateError
from igla.gate.log import GateLog
from igla.gate.outcomes import Outcome


class Losing(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Passes each request on to the server, and loses or refuses the first answers to it."""

    def __init__(self, lost: int, status: int | None = None):
        self.left, self.status = lost, status
        self.sync, self.other = httpx.HTTPTransport(), httpx.AsyncHTTPTransport()
        self.bodies: list[dict[str, Any]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.sync.handle_request(request)
        answer.read()
        return self._lost(request, answer)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self.other.handle_async_request(request)
        await answer.aread()
        return self._lost(request, answer)

    def close(self) -> None:
        self.sync.close()

    async def aclose(self) -> None:
        await self.other.aclose()

    def _lost(self, request: httpx.Request, answer: httpx.Response) -> httpx.Response:
        self.bodies.append(json.loads(request.content or b"{}"))
        self.left -= 1
        if self.left < 0:
            return answer
        if self.status is not None:
            return httpx.Response(self.status, headers={"retry-after": "0"}, json={})
        raise httpx.ReadError("lost")


@pytest.fixture(scope="module")
def gate(
    serve_gate: Callable[..., Any], trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder = tmp_path_factory.mktemp("gate")
    file = folder / "gate.db"
    (folder / "gate.yaml").write_text("gate: {log_seconds: 30}\n")  # on a busy disk
    words = ["--log", f"sqlite:///{file}", "--config", f"{folder}/gate.yaml"]
    with serve_gate(str(trained), *words) as running:
        log = GateLog(f"sqlite:///{file}")
        yield running.address, log
        log.close()


@pytest.mark.parametrize("status", [None, 503, 429])
def test_a_feedback_whose_answer_is_lost_is_sent_again_and_counts_once(
    gate: Any, status: int | None
) -> None:
    address, log = gate
    before = len(log.feedback_since(0))
    losing = Losing(2, status)
    with GateClient(address, transport=losing) as client:
        given = client.feedback(Outcome.WRONGLY_BLOCKED, text="дом", who="anna")
    assert given.repeated and given.target == 1
    assert len(losing.bodies) == 3
    assert len({one["idempotency_key"] for one in losing.bodies}) == 1
    assert len(log.feedback_since(0)) == before + 1


def test_the_async_client_does_the_same(gate: Any) -> None:
    address, log = gate

    async def run() -> None:
        async with AsyncGateClient(address, transport=Losing(2)) as client:
            decided = await client.decide("глупый гадкий дом", subject="anna")
            assert decided.action == "block" and decided.probability < 0.1
            given = await client.feedback("confirmed_block", decision=decided.decision)
            assert given.weight == 1
            await client.withdraw(given.feedback)
            assert log.gone_since(0)[-1].id == given.feedback

    asyncio.run(run())


def test_a_tool_call_is_decided(gate: Any) -> None:
    with GateClient(gate[0]) as client:
        decided = client.decide(tool="mail", arguments={"to": "a@b"}, context="agent")
    assert decided.decision is not None and decided.version


def test_a_refusal_is_an_error_with_its_sentence_and_is_not_tried_again(gate: Any) -> None:
    losing = Losing(0)
    with GateClient(gate[0], transport=losing) as client, pytest.raises(GateError) as refused:
        client.feedback("confirmed_block", decision="d_0")
    assert refused.value.status == 404 and "no decision" in str(refused.value)
    assert len(losing.bodies) == 1


def test_a_gate_that_is_away_is_an_error_after_so_many_tries() -> None:
    with GateClient("http://127.0.0.1:9", retries=1) as client, pytest.raises(GateError) as away:
        client.decide("дом")
    assert away.value.status is None


def test_a_client_loads_nothing_heavy() -> None:
    code = (
        "import igla.gate.client, sys; print({'torch', 'numpy', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
