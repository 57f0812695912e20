"""The statements on what becomes of versions, for both backings; as in `tenancy.repository`, on its caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Select, Text, and_, bindparam, case, literal_column, null, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.canary import TRIAL, Canary
from tenancy.errors import StoreCorrupt
from tenancy.ledger import Deed, Edit, Ledger, LogLine
from tenancy.schema import TenantTables
from tenancy.store import MAX_KNOWN, Serving, ServingTexts, TrialArm, VersionKey
from tenancy.versions import (
    MAX_AUTHOR_CHARACTERS,
    MAX_REASON_CHARACTERS,
    ConfigVersion,
    History,
    Origin,
    VersionState,
)

ONLY_ROW: Final = 1
_RUNNING: Final = "1"
_KNOWN: Final = tuple(f"known_{n}" for n in range(MAX_KNOWN))


class LedgerRepository:
    """Versions' states, trials, what a tenant's file said last, and the log: of the connection's tenant."""

    def __init__(self, tables: TenantTables) -> None:
        self._tables = tables
        versions, active, trials = tables.config_versions, tables.active_version, tables.trials
        candidate = versions.alias("candidate")
        self.joined = (
            active.join(versions, active.c.version == versions.c.version)
            .outerjoin(
                trials,
                and_(trials.c.running == literal_column(_RUNNING), trials.c.baseline == active.c.version),
            )
            .outerjoin(candidate, candidate.c.version == trials.c.version)
        )
        self.serving_columns = (
            versions.c.version,
            versions.c.content_hash,
            trials.c.version.label("trial"),
            candidate.c.content_hash.label("trial_hash"),
            trials.c.share,
            trials.c.ends_at_ms,
        )
        self.serving_query: Select[Any] = select(*self.serving_columns).select_from(self.joined)
        known = [bindparam(name, type_=Text) for name in _KNOWN]
        self.texts_columns = (
            *self.serving_columns,
            *(
                # A body that is not wanted is not read: it may be long.
                case((each.c.content_hash.in_(known), null()), else_=each.c.body).label(label)
                for each, label in ((versions, "body"), (candidate, "trial_body"))
            ),
        )
        self.texts_query: Select[Any] = select(*self.texts_columns).select_from(self.joined)
        self.followed_query: Select[Any] = select(tables.followed_file.c.content_hash)
        self.trial_query: Select[Any] = select(trials.c.body).where(
            trials.c.running == literal_column(_RUNNING)
        )

    async def serving(self, connection: AsyncConnection) -> Serving | None:
        """Which version, or versions, new calls get."""
        row = (await connection.execute(self.serving_query)).one_or_none()
        return None if row is None else serving_of(*row)

    async def followed(self, connection: AsyncConnection) -> str | None:
        """The hash of what the tenant's file said when it was last taken over."""
        found: str | None = (await connection.execute(self.followed_query)).scalar_one_or_none()
        return found

    async def follow(self, connection: AsyncConnection, content_hash: str) -> None:
        """Note what the tenant's file says now."""
        table = self._tables.followed_file
        statement = _insert(connection, table).values(only_row=ONLY_ROW, content_hash=content_hash)
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=[*self._tables.scope, "only_row"], set_={"content_hash": content_hash}
            )
        )

    async def ledger(self, connection: AsyncConnection) -> Ledger:
        """All versions and the trial that runs. Raises `StoreCorrupt`."""
        versions, states = self._tables.config_versions, self._tables.version_states
        active = (
            await connection.execute(select(self._tables.active_version.c.version))
        ).scalar_one_or_none()
        rows = await connection.execute(
            select(
                versions.c.version,
                versions.c.content_hash,
                versions.c.schema_version,
                versions.c.author,
                versions.c.reason,
                versions.c.created_at,
                states.c.state,
                states.c.restores,
                states.c.changed_by,
                states.c.changed_reason,
                states.c.changed_at,
            )
            .select_from(versions.outerjoin(states, states.c.version == versions.c.version))
            .order_by(versions.c.version)
        )
        found = tuple(_version_of(row, active) for row in rows)
        if [each.version for each in found] != list(range(1, len(found) + 1)):
            raise StoreCorrupt("the versions are not numbered from 1 on without gaps")
        return Ledger(History(found), await self.running_trial(connection))

    async def running_trial(self, connection: AsyncConnection) -> Canary | None:
        """The trial that runs. Raises `StoreCorrupt`."""
        body = (await connection.execute(self.trial_query)).scalar_one_or_none()
        return None if body is None else trial_of(body)

    async def trials(
        self, connection: AsyncConnection, limit: int, before: int | None = None
    ) -> tuple[Canary, ...]:
        """The trials of the newest versions that had one, of those below ``before``. Raises `StoreCorrupt`."""
        table = self._tables.trials
        query = select(table.c.body).order_by(table.c.version.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.version < before)
        return tuple(trial_of(body) for body in (await connection.execute(query)).scalars())

    async def log(
        self, connection: AsyncConnection, limit: int, before: int | None = None
    ) -> tuple[LogLine, ...]:
        """The newest lines of those below the entry ``before``, latest first."""
        table = self._tables.config_log
        columns = (table.c.author, table.c.reason, table.c.at, table.c.deed, table.c.version, table.c.entry)
        query = select(*columns).order_by(table.c.entry.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.entry < before)
        rows = await connection.execute(query)
        return tuple(LogLine(_origin(*row[:3]), Deed(row[3]), *row[4:]) for row in rows)

    # -- writing ---------------------------------------------------------------------------------------

    async def write(self, connection: AsyncConnection, before: Ledger, edit: Edit) -> None:
        """Carry an edit out of what `ledger` has read in this transaction."""
        old = {each.version: each for each in before.history.versions}
        for version in edit.ledger.history.versions:
            if version.version not in old:
                await self._add(connection, version, edit.body)
            if old.get(version.version) != version:
                await self._put_state(connection, version)
        active = edit.ledger.history.active
        if active is not None and active != before.history.active:
            table = self._tables.active_version
            statement = _insert(connection, table).values(only_row=ONLY_ROW, version=active.version)
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[*self._tables.scope, "only_row"], set_={"version": active.version}
                )
            )
        if edit.ended is not None:
            await self.put_trial(connection, edit.ended, running=False)
        if edit.ledger.trial is not None and edit.ledger.trial != before.trial:
            await self.put_trial(connection, edit.ledger.trial, running=True)
        await self.put_log(connection, edit.log)

    async def _add(self, connection: AsyncConnection, version: ConfigVersion, body: str | None) -> None:
        table = self._tables.config_versions
        if body is None:
            source = select(table.c.body).where(table.c.version == version.restores)
            body = (await connection.execute(source)).scalar_one()
        created = version.created
        await connection.execute(
            _insert(connection, table).values(
                version=version.version,
                content_hash=version.content_hash,
                schema_version=version.schema_version,
                author=created.author,
                reason=created.reason,
                created_at=created.at,
                body=body,
            )
        )

    async def _put_state(self, connection: AsyncConnection, version: ConfigVersion) -> None:
        changed = version.changed
        await self.put_state(
            connection,
            {
                "version": version.version,
                "state": version.state.value,
                "restores": version.restores,
                "changed_by": None if changed is None else changed.author,
                "changed_reason": None if changed is None else changed.reason,
                "changed_at": None if changed is None else changed.at,
            },
        )

    async def put_state(self, connection: AsyncConnection, values: dict[str, object]) -> None:
        """Write the row of one version's state, by its columns."""
        statement = _insert(connection, self._tables.version_states).values(values)
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=[*self._tables.scope, "version"],
                set_={name: value for name, value in values.items() if name != "version"},
            )
        )

    async def put_trial(self, connection: AsyncConnection, trial: Canary, *, running: bool) -> None:
        """Write a trial as it stands."""
        plan = trial.plan
        values: dict[str, object] = {
            "baseline": plan.baseline,
            "share": plan.share,
            "ends_at_ms": trial.started_ms + plan.max_duration_ms,
            "running": int(running),
            "body": TRIAL.dump_json(trial).decode(),
        }
        statement = _insert(connection, self._tables.trials).values(version=plan.version, **values)
        await connection.execute(
            statement.on_conflict_do_update(index_elements=[*self._tables.scope, "version"], set_=values)
        )

    async def put_log(self, connection: AsyncConnection, lines: Sequence[LogLine]) -> None:
        """Add lines, oldest first."""
        for line in lines:
            await connection.execute(
                _insert(connection, self._tables.config_log).values(
                    at=line.origin.at,
                    author=line.origin.author,
                    deed=line.deed.value,
                    version=line.version,
                    reason=line.origin.reason,
                )
            )


def known_as(known: Sequence[str]) -> dict[str, str]:
    """The values of `LedgerRepository.texts_query`, which has room for a fixed number of hashes."""
    if len(known) > MAX_KNOWN:
        raise ValueError(f"at most {MAX_KNOWN} known hashes, not {len(known)}")
    return {name: known[n] if n < len(known) else "" for n, name in enumerate(_KNOWN)}


def texts_of(row: Sequence[Any]) -> ServingTexts:
    """A row of `LedgerRepository.texts_query`."""
    *columns, body, trial_body = row
    serving = serving_of(*columns)
    bodies = {}
    if body is not None:
        bodies[serving.active.content_hash] = body
    if serving.trial is not None and trial_body is not None:
        bodies[serving.trial.key.content_hash] = trial_body
    return ServingTexts(serving, bodies)


def serving_of(  # noqa: PLR0917 - a row's columns, in their order
    version: int,
    content_hash: str,
    trial: int | None,
    trial_hash: str | None,
    share: int | None,
    ends_at_ms: int | None,
) -> Serving:
    """A row of `LedgerRepository.serving_query`."""
    active = VersionKey(version, content_hash)
    if trial is None or trial_hash is None or share is None or ends_at_ms is None:
        return Serving(active)
    return Serving(active, TrialArm(VersionKey(trial, trial_hash), share, ends_at_ms))


def imported_origin(author: str, reason: str, at: datetime) -> Origin:
    """An origin of what programs import: blank or too long texts are made to fit."""
    return _origin(author, reason, at)


def _origin(author: str, reason: str, at: datetime) -> Origin:
    # Imports were never asked for a reason, or for a short one.
    return Origin(
        author[:MAX_AUTHOR_CHARACTERS] if author.strip() else "unknown",
        reason[:MAX_REASON_CHARACTERS] if reason.strip() else "not given",
        at,
    )


def _version_of(row: Sequence[Any], active: int | None) -> ConfigVersion:
    version, content_hash, schema_version, author, reason, created_at = row[:6]
    state, restores, changed_by, changed_reason, changed_at = row[6:]
    changed = None if changed_by is None else _origin(changed_by, changed_reason, changed_at)
    # Which one is active is said in one place; what has no state was active once.
    said = VersionState(state) if state else VersionState.SUPERSEDED
    if version == active:
        said = VersionState.ACTIVE
    elif said is VersionState.ACTIVE:
        said = VersionState.SUPERSEDED
    return ConfigVersion(
        version,
        content_hash,
        schema_version,
        _origin(author, reason, created_at),
        said,
        restores,
        changed,
    )


def trial_of(body: str) -> Canary:
    """A trial as it is kept. Raises `StoreCorrupt`."""
    try:
        return TRIAL.validate_json(body, strict=True)
    except ValidationError as error:
        raise StoreCorrupt(f"a trial cannot be read: {error.error_count()} faults") from error


def _insert(connection: AsyncConnection, table: Any) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
