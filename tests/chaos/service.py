"""What a Service is in Kubernetes: one address; each TCP connection goes to one of those behind it that answers.

python -m tests.chaos.service --listen HOST:PORT --to HOST:PORT,HOST:PORT
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
from collections.abc import Sequence


class Service:
    """Connections to its address go to each of the targets in turn; one that refuses is passed over."""

    def __init__(self, targets: Sequence[str]) -> None:
        """targets: host:port each."""
        self._targets = [(host, int(port)) for host, _, port in (target.rpartition(":") for target in targets)]
        self._turns = itertools.cycle(range(len(self._targets)))

    async def serve(self, listen: str) -> None:
        """Until it is cancelled."""
        host, _, port = listen.rpartition(":")
        server = await asyncio.start_server(self._connected, host, int(port))
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(self._turns)
        for number in range(len(self._targets)):
            host, port = self._targets[(first + number) % len(self._targets)]
            with contextlib.suppress(OSError):
                there = await asyncio.open_connection(host, port)
                await asyncio.gather(_pass_on(reader, there[1]), _pass_on(there[0], writer))
                return
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(prog="service", description=__doc__)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--to", required=True, help="host:port, comma-separated")
    given = parser.parse_args()
    asyncio.run(Service(given.to.split(",")).serve(given.listen))


if __name__ == "__main__":
    main()
