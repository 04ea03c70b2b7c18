"""What a disk may do to the log: be full, fail at a write, fail to sync."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from igla.gate.log import GateLog

STRACE = shutil.which("strace")


def traceable() -> bool:
    """Whether one process may look into another here."""
    return STRACE is not None and (
        subprocess.run([STRACE, "-qq", "-e", "trace=none", "true"], capture_output=True).returncode
        == 0
    )


needs_strace = pytest.mark.skipif(
    not traceable(), reason="needs strace (Debian: strace), and leave to trace processes"
)

# Gives each of so many feedbacks until the log has it; prints how many tries failed.
PERSISTENT = """
import sys
from sqlalchemy.exc import DBAPIError
from igla.gate.log import GateLog, NewFeedback
from igla.gate.outcomes import Outcome

log, failed = GateLog(sys.argv[1]), 0
for number in range(40):
    one = NewFeedback(
        outcome=Outcome.WRONGLY_BLOCKED, text=f"text {number} " * 40, context=f"{number}",
        idempotency_key=f"{number}",
    )
    while True:
        try:
            [stored] = log.write([one])
        except DBAPIError as error:
            failed += 1
            assert failed < 1000, error
        else:
            break
print(failed)
"""


@pytest.fixture
def patient(tmp_path: Path) -> list[str]:
    """Lets decisions wait for the log while other tests keep the disk busy."""
    (tmp_path / "gate.yaml").write_text("gate: {log_seconds: 30}\n")
    return ["--config", f"{tmp_path}/gate.yaml"]


@needs_strace
@pytest.mark.parametrize(
    "fault", ["pwrite64:error=EIO", "pwrite64:error=ENOSPC", "fdatasync:error=EIO"]
)
def test_a_write_that_fails_at_whatever_place_is_not_acknowledged_and_can_be_tried_again(
    fault: str, tmp_path: Path
) -> None:
    file = tmp_path / "gate.db"
    url = f"sqlite:///{file}"
    GateLog(url).close()
    # Seldom enough that a commit can succeed, and out of step with them: over forty commits each
    # place in one has its turn.
    every = "3+37" if fault.startswith("pwrite64") else "2+3"
    inject = ["-P", str(file), "-P", f"{file}-wal", "-e", f"inject={fault}:when={every}"]
    command = [str(STRACE), "-f", "-qq", "-o", str(tmp_path / "trace"), *inject]
    done = subprocess.run(
        [*command, sys.executable, "-c", PERSISTENT, url], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    assert (tmp_path / "trace").read_text().count("(INJECTED)") > 5
    with closing(GateLog(url)) as log:
        assert [one.context for one in log.feedback_since(0)] == [str(one) for one in range(40)]
        assert log.audit_fault() is None
        with log.database.reading() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"


def test_a_full_disk_stops_no_decision_and_acknowledges_no_feedback(
    serve_gate: Callable[..., Any], trained: Path, tmp_path: Path, patient: list[str]
) -> None:
    url = f"sqlite:///{tmp_path}/gate.db"
    said = {"text": "дом " * 500, "outcome": "confirmed_allow", "idempotency_key": "late"}
    with (
        serve_gate(str(trained), "--log", url, *patient) as running,
        httpx.Client(base_url=running.address, timeout=30) as client,
    ):
        assert client.post("/v1/gate/decide", json={"text": "дом"}).json()["logged"]
        # No file of the server's may be written any more beyond its first byte.
        no_limit = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (1, no_limit[1]))
        decided = [client.post("/v1/gate/decide", json={"text": "добрый дом"}) for _ in range(3)]
        refused = client.post("/v1/gate/feedback", json=said)
        suggested = client.post(
            "/v1alpha1/comments:suggestscore",
            json={
                "comment": {"text": "дом"},
                "attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.9}}},
            },
        )
        figures = client.get("/metrics").text
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, no_limit)
        again = client.post("/v1/gate/feedback", json=said)
        well = client.post("/v1/gate/decide", json={"text": "дом"}).json()
    for one in decided:
        assert one.status_code == 200 and one.json()["action"] == "allow"
        assert one.json()["logged"] is False and one.json()["decision"] is None
    assert refused.status_code == 503 and "cannot be written" in refused.json()["error"]
    assert int(refused.headers["retry-after"]) >= 1
    assert suggested.status_code == 503
    assert 'igla_gate_not_logged_total{kind="decision"} 3.0' in figures
    assert 'igla_gate_not_logged_total{kind="feedback"} 2.0' in figures
    assert again.status_code == 200 and again.json()["repeated"] is False
    assert well["logged"]
    with closing(GateLog(url)) as log:
        assert len(log.feedback_since(0)) == 1 and len(log.decisions()) == 2


@needs_strace
def test_the_disk_has_each_answer_before_the_client(
    serve_gate: Callable[..., Any], trained: Path, tmp_path: Path, patient: list[str]
) -> None:
    trace, url = tmp_path / "trace", f"sqlite:///{tmp_path}/gate.db"
    with (
        serve_gate(str(trained), "--log", url, *patient) as running,
        httpx.Client(base_url=running.address, timeout=60) as client,
    ):
        client.post("/v1/gate/decide", json={"text": "дом"})
        watched = "trace=fsync,fdatasync,read,recvfrom,recvmsg,write,writev,sendto,sendmsg"
        command = [str(STRACE), "-f", "-y", "-s", "40", "-e", watched, "-o", str(trace)]
        with subprocess.Popen(
            [*command, "-p", str(running.process.pid)], stderr=subprocess.PIPE, text=True
        ) as tracing:
            assert tracing.stderr is not None
            assert "attached" in tracing.stderr.readline()
            for number in range(10):
                said = {"text": f"дом {number}", "outcome": "confirmed_allow"}
                decided = client.post("/v1/gate/decide", json={"text": f"дом {number}"})
                assert decided.json()["logged"]
                assert client.post("/v1/gate/feedback", json=said).status_code == 200
            tracing.terminate()
            tracing.communicate()
    synced, answered = 0, []
    asked = False
    files: dict[str, str] = {}  # thread → the file that it is syncing
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        thread = line.split()[0]
        if '"POST /v1/gate/' in line:
            asked, synced = True, 0
        if "sync(" in line:
            files[thread] = line
        if "sync" in line and line.endswith("= 0") and "gate.db" in files.get(thread, ""):
            synced += 1
        if '"HTTP/1.1 200' in line and asked:
            answered.append(synced)
            asked = False
    assert len(answered) == 20 and min(answered) >= 1, answered
