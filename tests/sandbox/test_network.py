"""Where a handler can connect to: BTrDB, and nowhere else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.certificates import make_certificates
from executor.sandbox.job import Access
from executor.sandbox.runtime import SandboxedRuntime
from tests.executor.sandbox.conftest import Info

from .conftest import Stands, make_job
from .sandboxes import HOST_NETWORK, Attack, Pod, everywhere, weaknesses

FILTER = ("filter system calls",)
OPEN = (HOST_NETWORK, "bring up the network", "fence with Landlock")


def connects_to_a_server_of_the_host(File: str) -> str:
    import json
    import socket

    socket.create_connection(tuple(json.loads(File)["tcp"][:2]), 2).close()
    return "reached"


def connects_by_ipv6(File: str) -> str:
    import json
    import socket

    socket.create_connection(tuple(json.loads(File).get("tcp6", ["::1", 9])[:2]), 2).close()
    return "reached"


def sends_a_datagram(File: str) -> str:
    import json
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", tuple(json.loads(File)["udp"]))
    return "reached"


def connects_to_an_abstract_socket(File: str) -> str:
    import json
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(json.loads(File)["abstract"])
    return "reached"


def connects_to_a_socket_by_its_path(File: str) -> str:
    import json
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(json.loads(File)["path"])
    return "reached"


def asks_for_the_machines_credentials(File: str) -> str:
    """The metadata address of clouds, and others beyond this machine: no route is as good as none."""
    import errno
    import socket

    for address in (("169.254.169.254", 80), ("169.254.170.2", 80), ("100.100.100.200", 80), ("8.8.8.8", 53)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            result = sock.connect_ex(address)
            if result in (0, errno.EINPROGRESS):
                return f"reached: a packet left for {address[0]}"
    return "no route"


def asks_a_name_server(File: str) -> str:
    import socket

    return "reached" if socket.getaddrinfo("example.com", 443) else ""


def makes_a_raw_socket(File: str) -> str:
    import socket

    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "reached"


def makes_a_packet_socket(File: str) -> str:
    import socket

    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    return "reached"


def makes_a_netlink_socket(File: str) -> str:
    import socket

    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
    return "reached"


def makes_a_vsock_socket(File: str) -> str:
    import socket

    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    return "reached"


def makes_a_socket_for_the_kernels_ciphers(File: str) -> str:
    import socket

    socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()
    return "reached"


def makes_a_multipath_socket(File: str) -> str:
    """TCP by another protocol, of which Landlock's ports know nothing."""
    import socket

    socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).close()
    return "reached"


def opens_a_port(File: str) -> str:
    import socket

    with socket.create_server(("127.0.0.1", 0)):
        return "reached"


def makes_an_internet_socket(File: str) -> str:
    import socket

    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    return "reached"


ATTACKS = [
    Attack(connects_to_a_server_of_the_host, OPEN, ("fence with Landlock", *FILTER)),
    Attack(connects_by_ipv6, OPEN, ("fence with Landlock", *FILTER)),
    Attack(sends_a_datagram, OPEN + FILTER, FILTER),
    Attack(connects_to_an_abstract_socket, OPEN, ("fence with Landlock", "fence the keeper's signals")),
    Attack(
        connects_to_a_socket_by_its_path,
        ("build the root", "mount the zygote's proc", "enter the root", "fence with Landlock"),
        at=("full",),
    ),
    Attack(asks_for_the_machines_credentials, OPEN, bare="anybody"),
    Attack(makes_a_raw_socket, bare="root"),
    Attack(makes_a_packet_socket, bare="root"),
    Attack(makes_a_netlink_socket, FILTER, FILTER),
    Attack(makes_a_vsock_socket, FILTER, FILTER),
    Attack(makes_a_socket_for_the_kernels_ciphers, FILTER, FILTER),
    Attack(makes_a_multipath_socket, FILTER, FILTER),
    Attack(opens_a_port, ("fence with Landlock",), ("fence with Landlock", *FILTER)),
    Attack(makes_an_internet_socket, pod=FILTER, at=("pod",)),
]


@pytest.mark.parametrize("attack, level", everywhere(ATTACKS))
def test_no_address_can_be_reached(stands: Stands, attack: Attack, level: str) -> None:
    stands.holds(attack, level)


@pytest.mark.parametrize("attack, level, without", weaknesses(ATTACKS))
def test_addresses_are_reached_without_the_step(
    stands: Stands, attack: Attack, level: str, without: tuple[str, ...]
) -> None:
    if attack.do is connects_by_ipv6 and "tcp6" not in stands.facts:
        pytest.skip("this machine has no IPv6")
    stands.lets_through(attack, level, without)


def test_no_name_is_looked_up(stands: Stands, level: str) -> None:
    ended = stands.run(level, asks_a_name_server)

    assert ended.error is not None and ended.error.type == "socket.gaierror", ended


def test_the_relay_leads_to_btrdb_and_nowhere_else(networked: SandboxedRuntime, btrdb_endpoint: str) -> None:
    # given: a server of the host beside BTrDB's, on the same address
    host, _, port = btrdb_endpoint.partition(":")
    with socket.create_server((host, 0)) as server:
        other = server.getsockname()[1]

        def handler(**kwargs: Any) -> str:
            import socket

            said = []
            for one in (int(port), other):
                try:
                    socket.create_connection((host, one), 5).close()
                    said.append("reached")
                except OSError as error:
                    said.append(type(error).__name__)
            return " ".join(said)

        text = networked.run(make_job(handler)).text

    assert text in ("reached PermissionError", "reached ConnectionRefusedError")


@pytest.fixture(scope="module")
def tls_btrdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """BTrDB's server over TLS; port 4411, by which clients know that it is."""
    from concurrent import futures

    import grpc
    from btrdb.grpcinterface import btrdb_pb2_grpc

    folder = tmp_path_factory.mktemp("tls", numbered=True)
    address = "127.87.1.7"
    tls = make_certificates(folder, address)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    btrdb_pb2_grpc.add_BTrDBServicer_to_server(Info(), server)
    credentials = grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])
    server.add_secure_port(f"{address}:4411", credentials)
    server.start()
    shown = Path("/var/tmp") / f"eventproc-ca-{folder.name}.pem"
    shown.write_bytes(tls.ca.read_bytes())
    shown.chmod(0o644)
    yield Access(f"{address}:4411", shown)
    shown.unlink()
    server.stop(0).wait()


def test_without_a_network_btrdb_is_reached_through_the_runs_own_socket(tls_btrdb: Access) -> None:
    # given: a pod without namespaces
    pod = Pod("default")
    pod.ask(tls_btrdb)

    def handler(btrdb: Any, **kwargs: Any) -> str:
        import os
        import socket

        import btrdb as module

        own = module.connect()
        try:
            socket.socket(socket.AF_INET)
            network = "network"
        except PermissionError:
            network = "no network"
        return f"{btrdb.info()['build']} {own.info()['build']} {os.environ['BTRDB_ENDPOINTS']} {network}"

    # when
    ended = pod.run(make_job(handler))
    again = pod.run(make_job(handler, api_key="not alice's"))
    pod.close()

    # then
    assert ended.text == f"5.11.0 5.11.0 {tls_btrdb.endpoint} no network", ended
    assert again.error is not None and "refuses the API key" in again.error.message


def test_ordinary_sockets_between_its_own_processes_work(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> str:
        import os
        import socket

        path = os.environ["TMPDIR"] + "/s"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            if os.fork() == 0:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(path)
                    client.sendall(b"hello")
                os._exit(0)
            return server.accept()[0].recv(5).decode()

    assert stands.run(level, handler).text == "hello"
