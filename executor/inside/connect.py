"""The handler's connection to BTrDB, made before its pickle is loaded; the channel behind it before even its job is known."""

import importlib
import threading
import warnings
from typing import Any, Optional

AHEAD_S = 2.0
"""So long at most a waiting child waits for its channel; without one it connects when its job comes."""


class Away(Exception):
    """BTrDB cannot be reached."""


class KeyRefused(Exception):
    """BTrDB refuses the run's API key."""


class Ahead(object):
    """A TLS channel that a waiting child opens: the handshakes cost 20 ms of a run's start. The run's key is told later.

    btrdb itself makes the channel and the connection, in whatever version the runtime has; where its parts are not as we know
    them there is no channel ahead, and the run connects as anybody does.
    """

    def __init__(self, endpoint: Optional[str]) -> None:
        self._endpoint = endpoint
        self._key = ""
        self._traceparent = ""
        self._asked = False
        self._connection: Any = None

    def open(self) -> None:
        """Blocks until the channel is open or cannot be, AHEAD_S at most; raises nothing."""
        if self._endpoint is None:
            return
        try:
            self._connection = self._open()
        except Exception:  # noqa: BLE001 - whatever it is, the run will meet it and say so
            self._connection = None

    def connect(self, key: str, traceparent: str) -> Any:
        """A connected btrdb.BTrDB; None without an endpoint. Raises Away, KeyRefused.

        traceparent: W3C trace context that goes with every call over the channel that was opened ahead; '' for none.
        """
        self._traceparent = traceparent
        if self._endpoint is None:
            return None
        if self._connection is not None:
            try:
                return self._connect_on_open_channel(self._endpoint, key)
            except KeyRefused:
                raise
            except Away:  # it may have been closed while we waited
                self._connection.channel.close()
        return _connect(self._endpoint, key)

    def _open(self) -> Any:
        grpc: Any = importlib.import_module("grpc")
        connections = importlib.import_module("btrdb.conn")
        later = grpc.metadata_call_credentials(self._tell_key)
        usual = grpc.access_token_call_credentials
        grpc.access_token_call_credentials = lambda _: self._ask_later(later)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                connection = connections.Connection(self._endpoint, apikey="told later")
        finally:
            grpc.access_token_call_credentials = usual
        if not self._asked:
            return None
        decided = threading.Event()
        final = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE)

        def seen(state: Any) -> None:
            if state in final:
                decided.set()

        connection.channel.subscribe(seen, try_to_connect=True)
        decided.wait(AHEAD_S)
        connection.channel.unsubscribe(seen)
        return connection

    def _ask_later(self, credentials: Any) -> Any:
        self._asked = True
        return credentials

    def _tell_key(self, context: Any, callback: Any) -> None:
        told = (("authorization", "Bearer " + self._key),)
        callback(told + ((("traceparent", self._traceparent),) if self._traceparent else ()), None)

    def _connect_on_open_channel(self, endpoint: str, key: str) -> Any:
        module = importlib.import_module("btrdb")
        usual = getattr(module, "Connection", None)
        if usual is None:
            raise Away("this btrdb makes its connection elsewhere")
        self._key = key
        module.Connection = lambda *_, **__: self._connection  # type: ignore[attr-defined]
        try:
            return _connect(endpoint, key)
        finally:
            module.Connection = usual  # type: ignore[attr-defined]


def _connect(endpoint: str, key: str) -> Any:
    module = importlib.import_module("btrdb")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module.connect(endpoint, apikey=key)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the versions of btrdb raise different things here
        code = _grpc_code(error)
        if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            raise KeyRefused(str(error))
        raise Away(str(error))


def _grpc_code(error: Optional[BaseException]) -> str:
    """The gRPC status behind an exception: btrdb wraps it, so it is looked for in the chain."""
    while error is not None:
        code = getattr(error, "code", None)
        if callable(code):
            return str(getattr(code(), "name", ""))
        error = error.__cause__ or error.__context__
    return ""
