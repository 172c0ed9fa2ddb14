"""The way to BTrDB where a run has no network: gRPC channels to its address go through the run's own unix socket."""

import functools
import importlib
from typing import Any, Dict, Optional


def install(endpoint: Optional[str], path: str) -> None:
    """From now on grpc's channels to endpoint (host:port, however written) connect to the socket at path.

    TLS names are checked as if the connection were direct. Does nothing without an endpoint or without grpc.
    """
    if endpoint is None:
        return
    for name in ("grpc", "grpc.aio"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for maker in ("secure_channel", "insecure_channel"):
            setattr(module, maker, _through(getattr(module, maker), endpoint, path))


def _through(make: Any, endpoint: str, path: str) -> Any:
    host = endpoint.rpartition(":")[0]
    written = (endpoint, "dns:" + endpoint, "dns:///" + endpoint, "ipv4:" + endpoint)
    options = [("grpc.default_authority", endpoint)]
    if make.__name__ == "secure_channel":
        options.append(("grpc.ssl_target_name_override", host))

    @functools.wraps(make)
    def channel(target: str, *given: Any, **named: Any) -> Any:
        if target not in written:
            return make(target, *given, **named)
        place = 1 if make.__name__ == "secure_channel" else 0  # of options, after target
        positional = list(given)
        keywords: Dict[str, Any] = dict(named)
        if len(positional) > place:
            positional[place] = list(positional[place] or ()) + options
        else:
            keywords["options"] = list(keywords.get("options") or ()) + options
        return make("unix:" + path, *positional, **keywords)

    return channel
