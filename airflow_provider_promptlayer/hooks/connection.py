# SPDX-License-Identifier: Apache-2.0
"""The Airflow connection of a hook: how it is read, when it is read again, where it may lead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_promptlayer.api.errors import (
    PromptLayerAuthError,
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerTransientError,
    PromptLayerUnknownConnectionError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.polling.schedule import Throttle
from airflow_provider_promptlayer.transport.settings import Settings, read_connection

if TYPE_CHECKING:
    import requests

_known_settings: WeakKeyDictionary[Settings, ref[Settings]] = WeakKeyDictionary()
"""The settings that hooks of this process use, each once. No key outlives its last user."""

_throttles: WeakKeyDictionary[Settings, Throttle] = WeakKeyDictionary()
"""Connection → the throttle of all waits in this process that use it."""

_reading = threading.RLock()
"""Held while Airflow reads a connection: 3.0 and 3.1 mix up the requests of two threads."""

_READ_AGAIN_SECONDS = 60.0
"""Seconds between two reads of a connection through which no server is reached."""


class _CurrentThrottle(Throttle):
    """The throttle of the connection that a hook uses: the API key may change during a wait."""

    __slots__ = ("_hook",)

    def __init__(self, hook: PromptLayerConnection) -> None:
        self._hook = hook

    def hold_for(self, seconds: float, *, now: float) -> None:
        """Do what :meth:`.Throttle.hold_for` does."""
        self._hook._throttle().hold_for(seconds, now=now)

    def delay(self, *, now: float) -> float:
        """Do what :meth:`.Throttle.delay` does; 0 if the connection was not read yet.

        So this raises no error about the connection: the request that is sent next does.
        """
        return 0.0 if self._hook._settings is None else self._hook._throttle().delay(now=now)

    def remaining(self, *, now: float) -> float:
        """Do what :meth:`.Throttle.remaining` does; 0 if the connection was not read yet."""
        return 0.0 if self._hook._settings is None else self._hook._throttle().remaining(now=now)


class PromptLayerConnection(BaseHook):
    """Read an Airflow connection, again when it may have changed, and check where it leads.

    :param promptlayer_conn_id: id of an Airflow connection of type ``promptlayer``.
    """

    conn_name_attr = "promptlayer_conn_id"
    default_conn_name = "promptlayer_default"
    conn_type = "promptlayer"
    hook_name = "PromptLayer"

    def __init__(self, promptlayer_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.promptlayer_conn_id = promptlayer_conn_id
        self._settings: Settings | None = None
        self._read_at = 0.0  # by the monotonic clock
        self.was_connected = False
        """Whether PromptLayer has answered, here or in an earlier process of the same wait."""
        self.stays_at: str | None = None
        """The base URL of the only PromptLayer to send requests to; None for any."""
        self._job, self._way_back = "", ""

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form (Airflow 2; 3 reads the provider info)."""
        from airflow_provider_promptlayer.hooks.connection_form import widgets

        return widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and hidden fields of the connection form."""
        from airflow_provider_promptlayer.hooks.connection_form import FIELD_BEHAVIOUR

        behaviour: Any = FIELD_BEHAVIOUR
        return {key.replace("-", "_"): value for key, value in behaviour.items()}

    def get_conn(self) -> requests.Session:
        """Return a session for calls that this hook has no method for.

        The session adds the key to requests to PromptLayer and to no others, and has the
        connection's TLS and proxy settings. Close it, and give a ``timeout`` to each call.
        """
        from airflow_provider_promptlayer.transport.blocking import PromptLayerSession

        return PromptLayerSession(self.settings)

    @property
    def settings(self) -> Settings:
        """The connection as read on first use; blocking."""
        return self._settings or self._read_first()

    @property
    def known_base_url(self) -> str | None:
        """The base URL of :attr:`settings`; None if the connection was not read yet."""
        return None if self._settings is None else self._settings.base_url

    async def aget_settings(self) -> Settings:
        """Return :attr:`settings`, without blocking the event loop."""
        return self._settings or self._adopt(await self._aread_connection())

    @property
    def throttle(self) -> Throttle:
        """The throttle that all waits of this process on the same connection share."""
        return _CurrentThrottle(self)

    def _throttle(self) -> Throttle:
        if self._settings is None:
            self._read_first()
        return self._current_throttle

    def stay_at(self, base_url: str, *, about: str, way_back: str) -> None:
        """Send requests to no other PromptLayer from now on: there, the same id is another job's.

        :param base_url: as in :class:`.Settings`.
        :param about: the job that was started there, for messages.
        :param way_back: what to do if the connection leads elsewhere.
        :raises PromptLayerConfigurationError: if the connection leads elsewhere, now or when it is
            read.
        """
        self.stays_at, self._job, self._way_back = base_url, about, way_back
        if self._settings is not None:
            self._check_place(self._settings)

    def _has_changed(self, error: PromptLayerError, used: Settings) -> bool:
        """Return whether a failed call is to be sent again because the connection has changed.

        Reads the connection if it may have changed, unless another thread or coroutine that shares
        the hook has done so.

        :param error: the key was refused, or the host was not reached.
        :param used: the connection of the failed call.
        :raises PromptLayerError: if the key was refused, and the connection cannot be read.
        """
        if self._settings == used and self._may_have_changed(error):
            with _unreadable_is_unchanged(error), _reading:
                if self._settings == used:
                    self._use_if_new(self._read_connection())
        return self._says_changed(error, used)

    async def _ahas_changed(self, error: PromptLayerError, used: Settings) -> bool:
        """Do what :meth:`_has_changed` does, without blocking the event loop."""
        if self._settings == used and self._may_have_changed(error):
            with _unreadable_is_unchanged(error):
                self._use_if_new(await self._aread_connection())
        return self._says_changed(error, used)

    def _may_have_changed(self, error: PromptLayerError) -> bool:
        """Return whether to read the connection again: at once for a key, else once a minute."""
        now = time.monotonic()
        if isinstance(error, PromptLayerUnreachableError):
            if now - self._read_at < _READ_AGAIN_SECONDS:
                return False
            self._read_at = now
        return True

    def _says_changed(self, error: PromptLayerError, used: Settings) -> bool:
        if self._settings == used:
            return False
        self.log.warning(
            "%s; the connection %r has changed since, so the request is sent again.",
            f"PromptLayer refused the API key (HTTP {error.status})"
            if isinstance(error, PromptLayerAuthError)
            else "PromptLayer was not reached",
            self.promptlayer_conn_id,
        )
        return True

    def _use_if_new(self, settings: Settings) -> None:
        """Use the connection as it is now, unless it leads away from the job."""
        if settings == self._settings:
            return
        if elsewhere := self._leads_elsewhere(settings):
            self.log.warning("%s Still polling where it was started.", elsewhere)
            return
        self._adopt(settings)

    def _check_place(self, settings: Settings) -> None:
        if elsewhere := self._leads_elsewhere(settings):
            raise PromptLayerConfigurationError(f"{elsewhere} {self._way_back}")

    def _leads_elsewhere(self, settings: Settings) -> str:
        """Return what is wrong with a connection that does not lead to ``stays_at``, else ""."""
        if self.stays_at in (None, settings.base_url):
            return ""
        return (
            f"{self._job[:1].upper()}{self._job[1:]} was started at {self.stays_at}, and the "
            f"Airflow connection {self.promptlayer_conn_id!r} leads to {settings.base_url} now."
        )

    def _adopt(self, settings: Settings) -> Settings:
        self._check_place(settings)
        self._read_at = time.monotonic()
        if settings.is_cleartext:
            self.log.warning(
                "Airflow connection %r sends the API key unencrypted to %s: use https.",
                self.promptlayer_conn_id,
                settings.base_url,
            )
        if settings.verify is False:
            self.log.warning(
                "Airflow connection %r does not verify TLS certificates: anyone between here and "
                "PromptLayer can read the API key.",
                self.promptlayer_conn_id,
            )
        # Hooks share one object, as each of thousands of waits has a hook.
        found = _known_settings.setdefault(settings, ref(settings))()
        used = settings if found is None else found
        # First, as another thread asks for it as soon as there are settings.
        self._current_throttle = _throttles.setdefault(used, Throttle())
        self._settings = used
        return used

    def _read_first(self) -> Settings:
        with _reading:  # another thread may have read it meanwhile
            return self._settings or self._adopt(self._read_connection())

    def _read_connection(self) -> Settings:
        with self._connection_errors():
            return read_connection(self.get_connection(self.promptlayer_conn_id))

    async def _aread_connection(self) -> Settings:
        from airflow.providers.common.compat.connection import get_async_connection

        with self._connection_errors():
            return read_connection(await get_async_connection(self.promptlayer_conn_id, type(self)))

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        """Turn Airflow's errors about a connection into this provider's."""
        try:
            yield
        except PromptLayerError:
            raise
        except AirflowNotFoundException:
            unknown = PromptLayerUnknownConnectionError(
                f"There is no Airflow connection {self.promptlayer_conn_id!r}: add one of type "
                "'promptlayer' with the API key as its password, or correct promptlayer_conn_id. "
                "Airflow also says this of an AIRFLOW_CONN_… variable that it cannot parse."
            )
            if self._settings is None and not self.was_connected:
                raise unknown from None
            # Airflow says the same if its server or a secrets backend was away.
            raise PromptLayerTransientError(str(unknown)) from None
        except Exception as error:
            # Any exception means that Airflow could not be asked: in 3.0 not only its own classes.
            raise PromptLayerTransientError(
                f"Could not read the Airflow connection {self.promptlayer_conn_id!r}: "
                f"{one_line(str(error))}"
            ) from error


def _unreadable_is_unchanged(error: PromptLayerError) -> AbstractContextManager[None]:
    """Suppress errors of reading the connection after a call that reached no server."""
    unreachable = isinstance(error, PromptLayerUnreachableError)
    return suppress(PromptLayerError) if unreachable else nullcontext()
