"""Addresses, keys and certificates of a stack."""

import socket
import ssl
import threading
from pathlib import Path

import pytest

from devstack.addresses import free_address
from devstack.certificates import make_certificates
from devstack.keys import Holder, KeyFile, make_keys


def test_an_address_whose_port_is_taken_is_not_given_out() -> None:
    address = free_address(4411)
    with socket.socket() as taken:
        taken.bind((address, 4411))
        taken.listen()

        assert free_address(4411, prefer=address) != address
    assert free_address(4411, 4412, prefer=address) == address


def test_a_key_is_known_by_its_digest_alone_and_a_new_file_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = make_keys({"alice": ["user"], "admin": ["user", "admin"]}, file)
    reader = KeyFile(file)

    assert reader.holder_of(keys["alice"]) == Holder("alice")
    assert reader.holder_of("wrong") is None
    assert keys["alice"] not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    new = make_keys({"bob": ["user"]}, file)
    assert (reader.holder_of(keys["alice"]), reader.holder_of(new["bob"])) == (None, Holder("bob"))


def test_a_client_that_trusts_the_ca_accepts_the_certificate_at_its_address_and_no_other(tmp_path: Path) -> None:
    address = free_address(4411)
    made = make_certificates(tmp_path, address, names=("localhost",))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.cert, made.key)
    client = ssl.create_default_context(cafile=str(made.ca))
    with socket.create_server((address, 0)) as listener:

        def answer() -> None:
            for _ in range(3):
                connection, _ = listener.accept()
                try:
                    server.wrap_socket(connection, server_side=True).close()
                except OSError:
                    connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        for name in (address, "localhost"):
            with socket.create_connection(listener.getsockname()) as raw:
                client.wrap_socket(raw, server_hostname=name).close()
        with pytest.raises(ssl.SSLCertVerificationError), socket.create_connection(listener.getsockname()) as raw:
            client.wrap_socket(raw, server_hostname="elsewhere.example.com")
        thread.join(10)


def test_certificates_that_fit_are_kept(tmp_path: Path) -> None:
    first = make_certificates(tmp_path, "127.0.0.9").cert.read_bytes()

    assert make_certificates(tmp_path, "127.0.0.9").cert.read_bytes() == first
    assert make_certificates(tmp_path, "127.0.0.10").cert.read_bytes() != first
