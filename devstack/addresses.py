"""A loopback address of one's own: so that two stacks on one machine can both have BTrDB's port."""

from __future__ import annotations

import random
import socket

TRIES = 200


def free_address(*ports: int, prefer: str | None = None) -> str:
    """An address of 127.0.0.0/8 at which all these ports are free; prefer: taken when it is free. Raises OSError when none is found.

    The whole network is loopback on Linux (RFC 1122, 3.2.1.3). The address is drawn by chance, so that two stacks that start at the
    same time do not meet.
    """
    if prefer is not None and _free(prefer, ports):
        return prefer
    for _ in range(TRIES):
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(2, 254)}"
        if _free(address, ports):
            return address
    raise OSError(f"no loopback address has the ports {', '.join(map(str, ports))} free")


def _free(address: str, ports: tuple[int, ...]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT can be listened at
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True
