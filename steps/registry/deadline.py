"""A deadline for a whole HTTP request.

The timeout of ``requests`` is for each read of the socket: a server that sends a byte now and then
holds the caller for ever. Here the connections of a request are shut down from another thread when
its time is over, in whatever it waits: the handshake, the request, the answer's headers.
"""

from __future__ import annotations

import os
import socket
import threading
from types import TracebackType
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter


class Deadline:
    """A time limit for what is done with ``session`` within the block.

    Args:
        seconds: from the begin of the block.
    """

    def __init__(self, seconds: float) -> None:
        self.session = requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Adapter(self))
        self.passed = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self.session.close()
        with self._lock:
            for connection in self._sockets:
                connection.close()
            self._sockets.clear()

    def hold(self, connection: socket.socket) -> None:
        """Have a connection shut down when the time is over."""
        # TLS takes the socket over, and its connection stays the same
        copy = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            self._sockets.append(copy)
            if self.passed:
                _shut(copy)

    def _cut(self) -> None:
        with self._lock:
            self.passed = True
            for connection in self._sockets:
                _shut(connection)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side has ended it
        return


class _Adapter(HTTPAdapter):
    """Connections, also those through a proxy, that a deadline holds."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self._hold(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        self._hold(manager)
        return manager

    def _hold(self, manager: Any) -> None:
        deadline = self.deadline

        def holding(pool: Any) -> Any:
            class Connection(pool.ConnectionCls):  # type: ignore[misc]  # (known when it runs)
                def _new_conn(self) -> Any:
                    connection = super()._new_conn()
                    deadline.hold(connection)
                    return connection

            return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

        manager.pool_classes_by_scheme = {
            scheme: holding(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }
