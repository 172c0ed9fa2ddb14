"""Where the platform is and who asks: the address and the API key of event processing."""

import os
import re
from typing import Any, Optional, Tuple

DEFAULT_PORT = 4411


class Connection:
    """Address and API key of the platform, for the functions of btrdbextras.eventproc. Does not touch the network.

    Parameters
    ----------
    endpoint: str
        'host:port', or 'host' for port 4411. Default: the environment variable BTRDB_ENDPOINTS.
    apikey: str
        Your API key. Default: the environment variable BTRDB_API_KEY.

    Both variables are read when Connection is called. A platform whose certificate is signed by a private authority
    needs BTRDB_CA_BUNDLE as well: the path of a file with that authority's certificate (PEM).

    Raises
    ------
    ValueError: there is no endpoint or no key, or the endpoint is not host:port.
    TypeError: one of them is no str.

    Example
    -------
    >>> from btrdbextras import Connection
    >>> conn = Connection('example.com:4411', 'F0E1D2C3')
    >>> conn.endpoint
    'example.com:4411'
    """

    def __init__(self, endpoint: Optional[str] = None, apikey: Optional[str] = None) -> None:
        given = _given("endpoint", endpoint, "BTRDB_ENDPOINTS", "the platform's address as host:port")
        self._host, self._port = _address(given)
        self._apikey = _given("apikey", apikey, "BTRDB_API_KEY", "your API key")
        if not (self._apikey.isascii() if hasattr(self._apikey, "isascii") else True) or re.search(r"\s", self._apikey):
            raise ValueError("the API key holds a space or a character that no key has; was something else pasted?")

    @property
    def endpoint(self) -> str:
        """'host:port'."""
        host = "[%s]" % self._host if ":" in self._host else self._host
        return "%s:%d" % (host, self._port)

    @property
    def apikey(self) -> str:
        """The API key."""
        return self._apikey

    @property
    def host(self) -> str:
        """The host, without the brackets of an IPv6 address."""
        return self._host

    @property
    def port(self) -> int:
        """The port."""
        return self._port

    def __repr__(self) -> str:
        return "Connection(%r, apikey=...)" % self.endpoint

    def __reduce__(self) -> Tuple[Any, ...]:
        """A key never travels in a pickle: where a handler runs, it connects as the user who registered it."""
        return (Connection, ())


def _given(argument: str, value: Optional[str], variable: str, meaning: str) -> str:
    if value is None:
        value = os.environ.get(variable, "")
        if not value.strip():
            raise ValueError(
                "no %s: give %s as the argument %r or in the environment variable %s" % (argument, meaning, argument, variable)
            )
    if not isinstance(value, str):
        raise TypeError("%s must be a str, not %s" % (argument, type(value).__name__))
    if not value.strip():
        raise ValueError("%s is empty; it should be %s" % (argument, meaning))
    return value.strip()


def _address(endpoint: str) -> Tuple[str, int]:
    """Host and port; a path after them is left out, as clients in the field write one."""
    match = re.match(r"^(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+))(?::(\d{1,5}))?(?:/.*)?$", endpoint)
    if match is None:
        raise ValueError("endpoint %r is not host:port, such as example.com:4411" % endpoint)
    port = int(match.group(3) or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise ValueError("endpoint %r has port %d; ports go from 1 to 65535" % (endpoint, port))
    return match.group(1) or match.group(2), port
