"""Bringing the tables of a log up to date, by Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from igla.errors import UserError

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, name: str) -> None:
    """Make what tables the log lacks, in a transaction that is the only one to write.

    name  of the log, for the UserError where it is of a newer igla
    """
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise UserError(f"The log {name} is of another igla, a newer one: {error}.") from None
