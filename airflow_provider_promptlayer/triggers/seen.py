# SPDX-License-Identifier: Apache-2.0
"""Which version a watcher has reported last: from Airflow 3.3 on in the asset's state.

An event is reported at least once. The watcher *claims* it in the asset's state, hands it to
Airflow, and notes it as reported a few seconds later, when Airflow has stored it. Two triggerers
that hold the same watcher for a moment both read the claim, and the one that wrote it last reports
the event. While one holds a claim, the other claims no later version. A claim whose triggerer has
died counts no more after a while, and the event is reported then; so it is reported twice only if
the triggerer dies in those few seconds. A triggerer that lives on, and has handed the watcher to
another one, notes what it has reported all the same, and gives up what it has only claimed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from uuid import uuid4

from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.persisted import UnreadableError, read_persisted, versioned
from airflow_provider_promptlayer.triggers.on_kill import DetachedWork

CLAIM_SETTLES: Final = 1.0
"""Seconds after which another triggerer that has claimed the same event can be seen."""

STORED_AFTER: Final = 5.0
"""Seconds after which Airflow has stored an event: the triggerer hands events over each second."""

CLAIM_HOLDS: Final = 60.0
"""Seconds after which a claim counts no more."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept in the asset's state.

    :param reported: the number of the version that was reported last, or that was there when the
        watcher began; 0 if there was none.
    :param newest: the highest number of those.
    :param claimed: the number of the version that is being reported, if any.
    :param by: who reports it.
    :param at: when it was claimed, in seconds since the epoch.
    """

    reported: int
    newest: int
    claimed: int | None = None
    by: str | None = None
    at: float = 0.0

    @classmethod
    def read(cls, fields: Fields) -> Record:
        """Return the record that was kept."""
        return cls(
            fields.count("reported"),
            fields.count("newest"),
            fields.count_if_any("claimed"),
            fields.text_or_none("by"),
            fields.number_or_none("at") or 0.0,
        )


class SeenVersions:
    """The version that one watcher has reported last.

    :param state: of the watched asset; None where Airflow keeps none.
    :param key: under which to keep it there.
    """

    def __init__(self, state: Any, key: str, log: Any) -> None:
        self._state = state
        self._key = key
        self._log = log
        self._own = uuid4().hex
        self._reported: int | None = None  # as far as this process knows
        self._said = ""  # the trouble that was warned of last
        self.newest = 0
        """The highest number that was there before :meth:`claim` was asked about one."""

    async def claim(self, version: int) -> int | None:
        """Return the version before, if this watcher is to report another one; else None.

        :param version: the number of the version that is there now; 0 if there is none.
        """
        if version == self._reported:
            return None
        if self._state is None:
            if self._reported is None:
                self._log.info("Watching from now on, as before Airflow 3.3 no watcher can know.")
                self._reported = self.newest = version
                return None
            return self._reported if version else None
        try:
            previous = await self._claim(version)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next poll may do better
            trouble = str(error)
            if trouble != self._said:
                self._log.warning(
                    "The asset's state cannot be used, so nothing is reported: %s", trouble
                )
            self._said = trouble
            return None
        self._said = ""
        return previous

    def is_settled(self, version: int) -> bool:
        """Return whether there is nothing more to do until another version is there.

        :param version: what :meth:`claim` was asked about last.
        """
        return self._reported is not None and version in (self._reported, 0)

    async def note(self, version: int, *, was_reported: bool = True) -> None:
        """Note that a version needs no other event.

        :param was_reported: whether Airflow has been handed one, and has to store it first.
        """
        self._reported, self.newest = version, max(version, self.newest)
        if self._state is not None:
            await DetachedWork(self._noted(version, STORED_AFTER if was_reported else 0.0)).join()

    def give_up(self) -> None:
        """Let another triggerer claim what this one has claimed and will not report."""
        if self._state is not None:
            DetachedWork(self._given_up())

    async def _noted(self, version: int, pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            await self._note(version)
        except Exception as error:  # noqa: BLE001  # the event may be reported twice, not lost
            self._log.warning("The asset's state cannot be written: %s", error)

    async def _given_up(self) -> None:
        try:
            record = await self._read()
            if record is not None and record.by == self._own:
                await self._write(Record(record.reported, record.newest))
        except Exception as error:  # noqa: BLE001  # the claim counts no more after a while
            self._log.warning("The asset's state cannot be written: %s", error)

    async def _claim(self, version: int) -> int | None:
        record = await self._read()
        if record is None:
            # Airflow forgets the state of an asset whose DAG file was away for a while.
            known = version if self._reported is None else self._reported
            record = Record(known, max(known, self.newest))
            await self._write(record)
            self._log.info("Watching from version %s on.", record.reported or "none")
        self._reported, self.newest = record.reported, record.newest
        if version in (record.reported, 0):
            return None
        now = time.time()
        if record.by not in (None, self._own) and now - record.at < CLAIM_HOLDS:
            return None  # whatever it claims: only then is known what was reported before
        await self._write(Record(record.reported, record.newest, version, self._own, now))
        await asyncio.sleep(CLAIM_SETTLES)
        claimed = await self._read()
        if claimed is None or claimed.by != self._own:
            return None
        return record.reported

    async def _note(self, version: int) -> None:
        record = await self._read()
        newest = max(self.newest, 0 if record is None else record.newest)
        if record is not None and record.by not in (None, self._own):
            await self._write(replace(record, reported=version, newest=newest))
        else:
            await self._write(Record(version, newest))

    async def _read(self) -> Record | None:
        try:
            return read_persisted(await self._state.aget(self._key), Record.read)
        except UnreadableError as error:
            raise ValueError(error.about("What the watcher has kept")) from None

    async def _write(self, record: Record) -> None:
        await self._state.aset(self._key, versioned(asdict(record)))
