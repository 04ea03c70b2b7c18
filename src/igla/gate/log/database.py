"""The database under the log: SQLite by default, PostgreSQL where several servers share it.

There is one writer at a time over all processes: SQLite's BEGIN IMMEDIATE, an advisory lock in
PostgreSQL. So rows are numbered in the order in which they are committed, and who reads on from a
number misses none; and the audit trail has one end.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from igla.errors import UserError

# The newest of the migrations, which a log that is up to date has behind it.
HEAD = "0002"
_REVISION = text("SELECT version_num FROM alembic_version")
# "igla", as the number of the advisory lock.
_LOCK = text("SELECT pg_advisory_xact_lock(1768385633)")
_NONE = "name the server's with --log; igla gate serve makes it"
_BUSY_SECONDS = 20
# A server that has gone without a word is given up after so long, not after hours.
_POSTGRESQL_SETTINGS = {"connect_timeout": 10, "tcp_user_timeout": _BUSY_SECONDS * 1000}
_SQLITE_SETTINGS = (
    f"busy_timeout = {_BUSY_SECONDS * 1000}",
    "journal_mode = WAL",
    "synchronous = FULL",  # each commit is on the disk before it is one
    "foreign_keys = ON",
    "secure_delete = ON",  # what is erased is overwritten
)


class Database:
    """Connections for reading, and transactions for writing."""

    def __init__(self, url: str, *, make: bool = True):
        """Open a database and bring its tables up to date; UserError where that cannot be.

        make  whether a log is made where there is none
        """
        self.url = _parsed(url)
        self.engine = _engine(self.url, make)
        try:
            self._bring_up_to_date(make)
        except UserError:
            self.close()
            raise
        except DBAPIError as error:
            self.close()
            raise UserError(f"The log {self} cannot be opened: {str(error.orig).strip()}") from None

    def __str__(self) -> str:
        return _shown(self.url)

    @property
    def sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is the only one to write; durable when the block has ended well."""
        with self.engine.connect() as connection:
            connection = connection.execution_options(igla_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot of what is committed."""
        with self.engine.connect() as connection:
            if not self.sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def scrub(self) -> None:
        """Let what was deleted be gone from the files as well: SQLite has overwritten it there and
        empties the file of changes; PostgreSQL gives the space to what comes.

        UserError where SQLite cannot, since others read all the while what was there before.
        """
        with self.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            if self.sqlite:
                done = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
                if done[0]:
                    raise UserError(
                        f"What was erased is gone from the log, but not yet from {self}-wal, which "
                        "others are reading: run the command again."
                    )
            else:
                connection.exec_driver_sql("VACUUM decisions, feedback")

    def close(self) -> None:
        self.engine.dispose()

    def _bring_up_to_date(self, make: bool) -> None:
        revision = self._revision()
        if revision is None and not make:
            raise UserError(f"There is no log in {self}: {_NONE}.")
        if revision != HEAD:
            from igla.gate.log.migrating import migrate  # Alembic takes longer than a rollback may

            with self.writing() as connection:
                migrate(connection, str(self))

    def _revision(self) -> str | None:
        """The last migration that the database has behind it; None: it holds no log."""
        with self.reading() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(_REVISION).scalar_one_or_none()


def shown(url: str) -> str:
    """A log's URL without its password; UserError where it is none."""
    return _shown(_parsed(url))


def _shown(url: URL) -> str:
    return url.set(drivername=url.get_backend_name()).render_as_string()


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UserError(
            f"{url!r} is no log: write sqlite:///FILE or postgresql://HOST/NAME."
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise UserError(f"A log is in sqlite or postgresql, not in {parsed.drivername}.")
    if parsed.database in (None, "", ":memory:"):
        raise UserError("A log in memory would be lost: write sqlite:///FILE.")
    return parsed


def _engine(url: URL, make: bool) -> Engine:
    if url.drivername != "sqlite":
        try:
            engine = create_engine(url, pool_pre_ping=True, connect_args=_POSTGRESQL_SETTINGS)
        except ModuleNotFoundError:
            raise UserError("PostgreSQL needs a driver: pip install igla[postgres]") from None
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    file = Path(str(url.database))
    if not make and not (file.is_file() and file.stat().st_size):
        raise UserError(f"There is no log {file}: {_NONE}.")
    _make(file)
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make(file: Path) -> None:
    """An empty file that is its owner's alone, if there is none: texts will be in it."""
    if not file.parent.is_dir():
        raise UserError(f"There is no folder {file.parent} for {file.name}; make it first.")
    try:
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}.") from None


def _set_up_sqlite(connection: object, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]  # transactions are begun here
    for setting in _SQLITE_SETTINGS:
        connection.execute(f"PRAGMA {setting}").close()  # type: ignore[attr-defined]


def _begin_postgresql(connection: Connection) -> None:
    # A server may be set to acknowledge before the disk has it; whatever waits longer is left.
    if connection.get_execution_options().get("igla_writes", False):
        connection.exec_driver_sql(
            "SELECT set_config('synchronous_commit', 'on', true) "
            "WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.execute(_LOCK)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("igla_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
