"""Brings a database to the present schema, with Alembic.

A SQLite file's ``user_version`` counts the revisions that it has, so that opening one that is up to date costs a read of
its header. Files from before Alembic have the same count, and are taken over at it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.runtime.migration import RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from tenancy.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"
POSTGRES_LOCK = 7_216_001
"""The advisory lock that nodes take which migrate one database at once."""
POSTGRES_LIMIT_MS = 600_000
"""For one statement of a migration, and for what the program does between two."""


class SchemaHistory:
    """One history's revisions, read once."""

    def __init__(self, name: str, directory: Path | None = None) -> None:
        self.name = name
        """``shared`` or ``tenant``."""
        self._script = ScriptDirectory(str(MIGRATIONS / name if directory is None else directory))
        self._new_file: tuple[str, ...] | None = None
        self._revisions = [each.revision for each in self._script.walk_revisions()][::-1]

    @property
    def head(self) -> int:
        """How many revisions there are."""
        return len(self._revisions)

    @property
    def newest(self) -> str:
        """The name of the last revision."""
        return self._revisions[-1]

    def create(self, connection: sqlite3.Connection) -> None:
        """Give a new SQLite file, and no other, the present schema: as Alembic makes it, in one go."""
        if _is_new(connection):
            script = self._script_of_a_new_file()
            connection.execute("BEGIN IMMEDIATE")
            try:
                # Read again under the lock: another process may have been faster.
                if _is_new(connection):
                    for statement in script:
                        connection.execute(statement)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _script_of_a_new_file(self) -> tuple[str, ...]:
        if self._new_file is None:
            # One connection, so that what is made in memory is still there to be read.
            engine = create_engine("sqlite://", poolclass=StaticPool)
            with engine.begin() as made:
                self.upgrade(made, "memory")
            with engine.connect() as made:
                driver = made.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                dump = [line for line in driver.iterdump() if line not in ("BEGIN TRANSACTION;", "COMMIT;")]
            engine.dispose()
            self._new_file = (*dump, f"PRAGMA user_version = {self.head}")
        return self._new_file

    def upgrade(self, connection: Connection, place: str, target: int | None = None) -> None:
        """Apply what is missing, within the connection's transaction. Raises `StoreError` for a newer schema.

        ``place`` is what errors call the database; ``target`` ends earlier than the head, for tests of a take-over.
        """
        sqlite = connection.dialect.name == "sqlite"
        if not sqlite:
            # The limits of a call's transactions are not those of a change to all rows of a table.
            for limit in ("idle_in_transaction_session_timeout", "statement_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {limit} = {POSTGRES_LIMIT_MS}")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({POSTGRES_LOCK})")
        context = MigrationContext.configure(
            connection, opts={"fn": self._steps(target), "version_table": f"{self.name}_schema"}
        )
        if sqlite:
            self._take_over(connection, context)
        self._refuse_newer(context, place)
        context.run_migrations(op=Operations(context))
        if sqlite:
            count = self.head if target is None else target
            connection.exec_driver_sql(f"PRAGMA user_version = {count}")

    def _steps(self, target: int | None) -> Callable[[tuple[str, ...], MigrationContext], list[RevisionStep]]:
        goal = self._revisions[-1 if target is None else target - 1]

        def steps(present: tuple[str, ...], context: MigrationContext) -> list[RevisionStep]:
            del context
            missing = self._script.iterate_revisions(goal, present or "base", implicit_base=True)
            return [
                RevisionStep.upgrade_from_script(self._script.revision_map, each)
                for each in reversed(list(missing))
            ]

        return steps

    def _take_over(self, connection: Connection, context: MigrationContext) -> None:
        """Note the revisions of a file that was made before Alembic."""
        count = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        if 0 < count <= self.head and not context.get_current_heads():
            context.stamp(self._script, self._revisions[count - 1])

    def _refuse_newer(self, context: MigrationContext, place: str) -> None:
        for present in context.get_current_heads():
            if present not in self._revisions:
                raise StoreError(
                    f"{place}: schema {present} is newer than this program's {self._revisions[-1]}"
                )


def _is_new(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return bool(tables == 0)
