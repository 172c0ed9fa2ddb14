"""Where the platform is and who is asking."""

import os
import re
from typing import Any, Optional, Tuple

DEFAULT_PORT = 4411


class Connection:
    """The platform's address and your API key; nothing is dialled before the first call.

    Parameters
    ----------
    endpoint: str, optional
        'host:port' of BTrDB, which serves event processing too; 'host' alone for port 4411. Default: environment variable BTRDB_ENDPOINTS.
    apikey: str, optional
        Your API key. Default: environment variable BTRDB_API_KEY.

    Raises
    ------
    ValueError
        When either is missing, or the endpoint is not host:port.
    TypeError
        When one is no str.

    Example
    -------
    >>> conn = Connection('btrdb.example.com:4411', 'YOUR-KEY')
    """

    def __init__(self, endpoint: Optional[str] = None, apikey: Optional[str] = None) -> None:
        for argument, value in (("endpoint", endpoint), ("apikey", apikey)):
            if value is not None and not isinstance(value, str):
                raise TypeError("%s should be a str; it is a %s" % (argument, type(value).__name__))
        # read when called: a notebook may set the variables after the import
        endpoint = (os.environ.get("BTRDB_ENDPOINTS", "") if endpoint is None else endpoint).split(",")[0].strip()
        apikey = (os.environ.get("BTRDB_API_KEY", "") if apikey is None else apikey).strip()
        if not endpoint:
            raise ValueError("no endpoint: pass 'host:port', or set the environment variable BTRDB_ENDPOINTS")
        if not apikey:
            raise ValueError("no API key: pass it, or set the environment variable BTRDB_API_KEY")
        if ":" not in endpoint:
            endpoint = "%s:%d" % (endpoint, DEFAULT_PORT)
        match = re.match(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})$", endpoint)
        if match is None or not 0 < int(match.group(2)) < 65536:
            raise ValueError("endpoint %r should be host:port, as in btrdb.example.com:4411" % endpoint)
        if not re.match(r"[!-~]+$", apikey):
            raise ValueError("the API key should be printable ASCII without spaces; was something else pasted?")
        self._endpoint = endpoint
        self._apikey = apikey

    @property
    def endpoint(self) -> str:
        """host:port."""
        return self._endpoint

    @property
    def apikey(self) -> str:
        """The API key."""
        return self._apikey

    def __reduce__(self) -> Tuple[Any, ...]:
        """A key never travels in a pickle: where a handler runs, it connects as the user who registered it."""
        return (Connection, ())

    def __repr__(self) -> str:
        return "Connection(%r)" % self._endpoint
