"""Where the platform is and who is asking."""

from __future__ import annotations

import os
from typing import Optional


class Connection:
    """The platform's address and your API key; nothing is dialled before the first call.

    Parameters
    ----------
    endpoint: str, optional
        'host:port' of BTrDB, which serves event processing too. Default: environment variable BTRDB_ENDPOINTS.
    apikey: str, optional
        Your API key. Default: environment variable BTRDB_API_KEY.

    Raises
    ------
    ValueError
        When either is missing, or the endpoint is not host:port.

    Example
    -------
    >>> conn = Connection('btrdb.example.com:4411', 'YOUR-KEY')
    """

    def __init__(self, endpoint: Optional[str] = None, apikey: Optional[str] = None) -> None:
        # read when called: a notebook may set the variables after the import
        endpoint = (os.environ.get("BTRDB_ENDPOINTS", "") if endpoint is None else endpoint).split(",")[0].strip()
        apikey = (os.environ.get("BTRDB_API_KEY", "") if apikey is None else apikey).strip()
        if not endpoint:
            raise ValueError("no endpoint: pass 'host:port', or set the environment variable BTRDB_ENDPOINTS")
        if not apikey:
            raise ValueError("no API key: pass it, or set the environment variable BTRDB_API_KEY")
        host, _, port = endpoint.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("endpoint %r should be host:port, as in btrdb.example.com:4411" % endpoint)
        if not apikey.isprintable() or not apikey.isascii():
            raise ValueError("the API key should be printable ASCII; was something else pasted?")
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

    def __repr__(self) -> str:
        return "Connection(%r)" % self._endpoint
