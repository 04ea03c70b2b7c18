"""The log: each feedback once, in an order that can be read on from."""

import csv
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pyarrow.parquet
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from igla.errors import UserError
from igla.gate.log import Event, GateLog, NewDecision, NewFeedback, NotStored, Stored, Withdrawal
from igla.gate.log.database import HEAD
from igla.gate.log.exporting import export
from igla.gate.log.importing import Imported, import_feedback
from igla.gate.log.records import now
from igla.gate.log.tables import Base, DecisionRow
from igla.gate.outcomes import Outcome


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty log, in each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/gate.db"
    found: str = request.getfixturevalue("new_database")
    return found


@pytest.fixture
def log(url: str) -> Iterator[GateLog]:
    with closing(GateLog(url)) as opened:
        yield opened


def decided(text: str = "дом", **changes: object) -> NewDecision:
    content: dict[str, object] = dict(
        model="default", version="v1", action="review", probability=0.4, text=text, context=text
    )
    return NewDecision(**{**content, **changes})  # type: ignore[arg-type]


def said(decision: NewDecision | None, outcome: Outcome, **changes: object) -> NewFeedback:
    return NewFeedback(decision=decision and decision.id, outcome=outcome, **changes)  # type: ignore[arg-type]


def kinds(results: list[Stored | NotStored]) -> list[str]:
    return [
        one.kind if isinstance(one, NotStored) else "repeated" if one.repeated else "stored"
        for one in results
    ]


def test_feedback_to_a_decision_is_read_with_its_text_target_and_weight(log: GateLog) -> None:
    one = decided()
    assert log.waiting() == log.decisions()
    log.write([one])
    assert [found.id for found in log.waiting()] == [one.id]
    (stored,) = log.write([said(one, Outcome.WRONGLY_BLOCKED, who="anna")])
    assert isinstance(stored, Stored) and stored.weight == 4
    (found,) = log.feedback_since(0)
    assert (found.text, found.target, found.weight, found.who) == ("дом", 1, 4, "anna")
    assert (found.version, found.action, found.probability) == ("v1", "review", 0.4)
    assert log.waiting() == [] and log.decisions()[0].answered
    assert log.feedback_since(found.seq) == []


def test_the_same_idempotency_key_is_the_same_feedback_or_a_conflict(log: GateLog) -> None:
    one = decided()
    first = said(one, Outcome.OVERRIDE_BLOCK, idempotency_key="a", key="forum")
    again = said(one, Outcome.OVERRIDE_BLOCK, idempotency_key="a", key="forum")
    other = said(one, Outcome.OVERRIDE_ALLOW, idempotency_key="a", key="forum")
    elsewhere = said(one, Outcome.OVERRIDE_ALLOW, idempotency_key="a", key="shop")
    together = log.write([one, first, again, other, elsewhere])
    assert kinds(together) == ["stored", "stored", "repeated", "conflict", "stored"]
    later = log.write([again, other])
    assert kinds(later) == ["repeated", "conflict"]
    assert isinstance(later[0], Stored) and later[0].id == first.id
    assert len(log.feedback_since(0)) == 2


def test_a_wrong_decision_weighs_more_each_time_that_it_is_made_again(log: GateLog) -> None:
    ones = [decided() for _ in range(4)]
    log.write(ones)
    wrong = Outcome.WRONGLY_ALLOWED
    weights = [one.weight for each in ones for one in log.write([said(each, wrong)])]  # type: ignore[union-attr]
    assert weights == [4, 6, 8, 8]
    (again,) = log.write([said(ones[0], wrong)])
    assert isinstance(again, Stored) and again.weight == 8
    (other,) = log.write([said(ones[0], Outcome.WRONGLY_BLOCKED)])
    assert isinstance(other, Stored) and other.weight == 4


def test_one_decision_called_wrong_by_many_is_no_repeated_wrong_decision(log: GateLog) -> None:
    one = decided()
    log.write([one])
    found = log.write([said(one, Outcome.WRONGLY_BLOCKED, who=who) for who in "abc"])
    assert [each.weight for each in found] == [4, 4, 4]  # type: ignore[union-attr]


def test_feedback_to_a_decision_that_is_not_there_keeps_no_other_out(log: GateLog) -> None:
    lost, one = decided(), decided()
    wrong = Outcome.WRONGLY_BLOCKED
    assert kinds(log.write([one, said(lost, wrong), said(one, wrong)])) == [
        "stored",
        "unknown",
        "stored",
    ]


def test_what_is_withdrawn_is_told_to_who_has_it_and_read_by_nobody_else(log: GateLog) -> None:
    one = decided()
    mine = said(one, Outcome.CONFIRMED_ALLOW, key="forum")
    log.write([one, mine])
    foreign, first, again = log.write(
        [
            Withdrawal(feedback=mine.id, key="shop"),
            Withdrawal(feedback=mine.id, key="forum"),
            Withdrawal(feedback=mine.id, key="forum"),
        ]
    )
    assert kinds([foreign, first, again]) == ["unknown", "stored", "repeated"]
    assert [(gone.id, gone.reason) for gone in log.gone_since(0)] == [(mine.id, "withdrawn")]
    assert log.feedback_since(0) == [] and [found.id for found in log.waiting()] == [one.id]


def test_a_key_gives_so_many_feedbacks_an_hour_and_the_trail_says_so_once(log: GateLog) -> None:
    log.per_hour = 2
    one = decided()
    log.write([one])
    many = [said(one, Outcome.CONFIRMED_ALLOW, key="forum") for _ in range(4)]
    results = log.write(many)
    assert kinds(results) == ["stored", "stored", "capped", "capped"]
    assert isinstance(results[2], NotStored) and 3500 < (results[2].wait or 0) <= 3600
    assert kinds(log.write([said(one, Outcome.CONFIRMED_ALLOW, key="shop")])) == ["stored"]
    assert [entry.event for entry in log.audit()].count("capped") == 1


def test_there_are_so_many_slices_and_one_more_is_refused(log: GateLog) -> None:
    log.slices = 2
    one, two, three = (decided(slice=name) for name in ("a", "b", "c"))
    wrong = Outcome.WRONGLY_BLOCKED
    together = [one, two, three, decided(), said(one, wrong, slice="d"), said(one, wrong)]
    expected = ["stored", "stored", "slices", "stored", "slices", "stored"]
    assert kinds(log.write(together)) == expected
    (again, refused) = log.write([said(two, wrong, slice="a"), said(two, wrong, slice="e")])
    assert isinstance(again, Stored) and isinstance(refused, NotStored)
    assert str(refused) == "There are 2 slices already, and e would be one more."
    assert log.decision(three.id) is None and len(log.feedback_since(0)) == 2
    log.slices = None
    assert kinds(log.write([three])) == ["stored"]


def test_what_is_refused_begins_no_slice(log: GateLog) -> None:
    log.slices = 1
    wrong = Outcome.WRONGLY_BLOCKED
    nowhere = said(decided(), wrong, slice="a")  # to a decision that the log does not have
    assert kinds(log.write([nowhere])) == ["unknown"]
    assert kinds(log.write([decided(slice="b"), decided(slice="c")])) == ["stored", "slices"]


def test_a_log_of_the_first_tables_is_brought_up_to_date_with_its_slices(url: str) -> None:
    with closing(GateLog(url)) as log, log.database.writing() as connection:
        connection.execute(insert(DecisionRow), asdict(decided(slice="a")))
        connection.execute(text("DROP TABLE slices"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with closing(GateLog(url, slices=1)) as log:
        assert kinds(log.write([decided(slice="a"), decided(slice="b")])) == ["stored", "slices"]


def test_voices_are_keys_and_without_keys_names(log: GateLog) -> None:
    one = decided()
    wrong = Outcome.WRONGLY_BLOCKED
    log.write([one, *(said(one, wrong, key="forum", who=who) for who in "ab")])
    assert log.voices(["дом"]) == {("дом", 1): {"forum"}}
    log.write([said(one, wrong, who=who) for who in "cd"])
    assert log.voices(["дом"]) == {("дом", 1): {"forum", "c", "d"}}


def test_events_are_numbered_in_the_trail(log: GateLog) -> None:
    log.note("swapped", "learner", version="v2")
    (stored,) = log.write([Event(event="swapped", actor="learner", facts={"version": "v3"})])
    assert isinstance(stored, Stored) and stored.id == "2"
    assert [entry.facts for entry in log.audit()] == [{"version": "v2"}, {"version": "v3"}]
    assert log.audit_fault() is None


def test_the_migrations_make_the_tables_that_the_code_has(log: GateLog) -> None:
    with log.database.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == HEAD


def test_a_log_of_a_newer_igla_is_left_alone(url: str) -> None:
    with closing(GateLog(url)) as log, log.database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="a newer one"):
        GateLog(url)


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit WHERE seq = 1"]
)
def test_the_database_itself_refuses_to_change_the_audit_trail(
    log: GateLog, statement: str
) -> None:
    log.note("swapped", "learner", version="v2")
    with pytest.raises(DBAPIError, match="append-only"), log.database.writing() as connection:
        connection.execute(text(statement))
    assert log.audit_fault() is None


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit SET facts = '{}' WHERE seq = 2", "Entry 2 .* was changed"),
        ("DELETE FROM audit WHERE seq = 2", "Entry 2 .* is missing"),
    ],
)
def test_who_changes_the_trail_behind_the_databases_back_is_found_out(
    tmp_path: Path, statement: str, fault: str
) -> None:
    with closing(GateLog(f"sqlite:///{tmp_path}/gate.db")) as log:
        for version in "abc":
            log.note("swapped", "learner", version=version)
        with log.database.writing() as connection:
            for verb in ("UPDATE", "DELETE"):
                connection.execute(text(f"DROP TRIGGER audit_is_append_only_{verb}"))
            connection.execute(text(statement))
        found = log.audit_fault()
        assert found is not None
        with pytest.raises(AssertionError, match=fault):
            raise AssertionError(found)


def test_who_reads_on_misses_nothing_while_several_write(log: GateLog, url: str) -> None:
    one = decided()
    log.write([one])

    def write(name: str) -> None:
        with closing(GateLog(url)) as mine:
            for _ in range(20):
                mine.write([said(one, Outcome.CONFIRMED_ALLOW, key=name)])

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for each in writers:
        each.start()
    read: list[str] = []
    cursor = 0
    while len(read) < 60:
        assert any(each.is_alive() for each in writers) or log.feedback_since(cursor)
        for found in log.feedback_since(cursor):
            read.append(found.id)
            cursor = found.seq
    for each in writers:
        each.join()
    assert [found.id for found in log.feedback_since(0)] == read
    assert log.audit_fault() is None


def test_what_one_person_has_left_is_erased_and_the_learner_is_told(log: GateLog, url: str) -> None:
    about, other = decided("тайна анны", subject="anna"), decided("тайна бориса", subject="boris")
    given = [
        said(about, Outcome.CONFIRMED_BLOCK, who="boris"),
        said(other, Outcome.CONFIRMED_BLOCK, who="anna"),
        said(other, Outcome.CONFIRMED_BLOCK, who="carl"),
        said(None, Outcome.OVERRIDE_ALLOW, text="слова анны", context="x", subject="anna"),
    ]
    log.write([about, other, *given])
    erased = log.erase_person("anna", "operator")
    assert (erased.decisions, erased.feedback) == (1, 3)
    assert [one.id for one in log.decisions()] == [other.id]
    assert [one.id for one in log.feedback_since(0)] == [given[2].id]
    gone = {one.id: one.reason for one in log.gone_since(0)}
    assert gone == {given[place].id: "erased" for place in (0, 1, 3)}
    assert log.audit()[-1].facts == {"decisions": 1, "feedback": 3}
    if log.database.sqlite:
        for file in Path(str(log.database.url.database)).parent.glob("gate.db*"):
            assert "анны".encode() not in file.read_bytes()


def test_names_of_slices_go_with_the_last_record_that_has_them(log: GateLog) -> None:
    log.slices = 3
    about = decided("дом", subject="anna", slice="for anna")
    other = decided("сад", subject="boris", slice="shop")
    words = said(None, Outcome.OVERRIDE_ALLOW, text="лес", context="x", who="anna", slice="annas")
    both = said(other, Outcome.CONFIRMED_BLOCK, who="anna")
    log.write([about, other, words, both])
    assert kinds(log.write([decided(slice="one more")])) == ["slices"]
    log.erase_person("anna", "operator")
    assert [log.has_slice(name) for name in ("for anna", "annas", "shop")] == [False, False, True]
    assert kinds(log.write([decided(slice="one more")])) == ["stored"]
    if log.database.sqlite:
        for file in Path(str(log.database.url.database)).parent.glob("gate.db*"):
            assert b"anna" not in file.read_bytes()


def test_the_number_of_what_was_erased_is_not_given_again(log: GateLog) -> None:
    one = said(None, Outcome.CONFIRMED_ALLOW, text="дом", context="дом", who="anna")
    log.write([one])
    (before,) = log.feedback_since(0)
    log.erase_person("anna", "operator")
    log.write([replace(one, id="f_2")])
    assert [found.id for found in log.feedback_since(before.seq)] == ["f_2"]


def test_old_records_expire_with_all_that_hangs_on_them(log: GateLog) -> None:
    old, new = decided(at=now() - timedelta(days=91)), decided()
    late = said(old, Outcome.CONFIRMED_ALLOW)
    log.write([old, new, late, said(new, Outcome.CONFIRMED_ALLOW)])
    erased = log.erase_older(now() - timedelta(days=90), "operator")
    assert (erased.decisions, erased.feedback) == (1, 1)
    assert [one.id for one in log.decisions()] == [new.id]
    assert [(one.id, one.reason) for one in log.gone_since(0)] == [(late.id, "expired")]


def filled(log: GateLog) -> None:
    one = decided('дом, "дача"\nи сад', tool="shell", subject="anna")
    log.write([one, said(one, Outcome.WRONGLY_BLOCKED, who="boris", key="forum")])
    log.write([said(None, Outcome.OVERRIDE_BLOCK, text="=1+1", context="x")])


def test_feedback_is_exported_in_each_form_with_the_same_content(
    log: GateLog, tmp_path: Path
) -> None:
    filled(log)
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert export(log, tmp_path / name, "feedback") == 2
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    for found in (rows, lines, table):
        assert [row["text"] for row in found] == ['дом, "дача"\nи сад', "=1+1"]
        assert [row["label"] for row in found] == ["allow", "block"]
        assert [str(row["weight"]) for row in found] == ["4", "2"]
        assert [row["outcome"] for row in found] == ["wrongly_blocked", "override_block"]
    assert lines[0] == {**table[0], "at": table[0]["at"].isoformat()}


def test_decisions_and_the_trail_are_exported_too(log: GateLog, tmp_path: Path) -> None:
    filled(log)
    for what in ("decisions", "audit"):
        count = export(log, tmp_path / f"{what}.parquet", what)
        assert pyarrow.parquet.read_table(tmp_path / f"{what}.parquet").num_rows == count > 0
    with pytest.raises(UserError, match="ends in none"):
        export(log, tmp_path / "a.xls", "feedback")


def test_a_log_of_the_older_format_is_imported_once(log: GateLog, tmp_path: Path) -> None:
    file = tmp_path / "old.csv"
    rows = ["text,label,who", "дом,1.0,anna", "дача,-0.5,anna", "сад,-1.0,", "сад,-1.0,", "лес,0,"]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert import_feedback(log, file, "wrongly_allowed", "test") == Imported(5, 0)
    assert import_feedback(log, file, "wrongly_allowed", "test") == Imported(0, 5)
    found = [(one.text, one.outcome, one.target, one.weight) for one in log.feedback_since(0)]
    assert found == [
        ("дом", "confirmed_allow", 1, 1),
        ("дача", "override_block", 0, 2),
        ("сад", "wrongly_allowed", 0, 4),
        ("сад", "wrongly_allowed", 0, 6),
        ("лес", "confirmed_block", 0, 1),
    ]


def test_minus_one_is_read_as_the_option_says(log: GateLog, tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text('{"text": "дом", "outcome": -1.0, "at": "2025-01-02T03:04:05+00:00"}\n')
    import_feedback(log, file, "wrongly_blocked", "test")
    (found,) = log.feedback_since(0)
    assert found.target == 1 and found.at.isoformat() == "2025-01-02T03:04:05+00:00"


@pytest.mark.parametrize(
    ("row", "said"), [("дом,0.5", "row 2: The label 0.5"), (",1", "row 2 has no text")]
)
def test_a_file_with_a_wrong_row_is_not_imported_at_all(
    log: GateLog, tmp_path: Path, row: str, said: str
) -> None:
    file = tmp_path / "old.csv"
    file.write_text(f"text,label\nдом,1\n{row}\n", encoding="utf-8")
    with pytest.raises(UserError, match=said):
        import_feedback(log, file, "wrongly_allowed", "test")
    assert log.feedback_since(0) == []


def test_a_commit_waits_for_the_disk_where_the_server_is_set_not_to(new_database: str) -> None:
    name = new_database.rsplit("/")[-1]
    with psycopg.connect(new_database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")  # type: ignore[arg-type]
    asked = text("SHOW synchronous_commit")
    with closing(GateLog(new_database)) as log:
        with log.database.reading() as connected:
            assert connected.execute(asked).scalar() == "off"
        with log.database.writing() as connected:
            assert connected.execute(asked).scalar() == "on"


def test_the_password_of_a_database_is_not_told(new_database: str) -> None:
    with closing(GateLog(new_database)) as log:
        assert "a%20word" in new_database and "word" not in str(log.database)
