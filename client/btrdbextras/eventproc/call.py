"""Calls to the platform: dialling, deadlines, and errors that say what to do."""

import contextlib
import os
import socket
import ssl
from typing import Any, Callable, Iterator

import certifi
import grpc

from btrdbextras.conn import Connection
from btrdbextras.errors import (
    EventProcError,
    InvalidRegistration,
    InvalidRequest,
    NoServer,
    NotYours,
    OlderPlatform,
    ServiceFailed,
    UnknownHandler,
    UnknownRun,
    UntrustedCertificate,
    WrongKey,
)
from btrdbextras.eventproc import wire

DEADLINE_S = 60.0
PROBE_S = 10.0
_MIB = 1024 * 1024
_OLDER = "the platform at %s is older than this package: it has no %s yet; hooks, list_handlers, register and deregister work as ever"


def call(conn: Connection, method: str, request: Any) -> Any:
    """The answer to a request of the service; blocks for at most a minute. Raises EventProcError."""
    with calling(conn) as ask:
        return ask(method, request)


@contextlib.contextmanager
def calling(conn: Connection) -> Iterator[Callable[[str, Any], Any]]:
    """Gives call(), without its first argument, for several calls over one connection."""
    channel = connect(conn)

    def ask(method: str, request: Any) -> Any:
        response = wire.message(method + "Response")
        send = channel.unary_unary(
            wire.SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        try:
            return send(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED and method != "ListHooks":
                ask(
                    "ListHooks", wire.message("ListHooksRequest")()
                )  # raises where event processing is not served at all
                raise OlderPlatform(_OLDER % (conn.endpoint, method)) from error
            raise _told(conn, method, error) from error

    try:
        yield ask
    finally:
        channel.close()


def connect(conn: Connection) -> Any:
    """A gRPC channel to the platform that carries the API key with each call; nothing is dialled before the first one."""
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(authorities()), grpc.access_token_call_credentials(conn.apikey)
    )
    options = [("grpc.max_receive_message_length", 64 * _MIB), ("grpc.max_send_message_length", -1)]
    return grpc.secure_channel(conn.endpoint, credentials, options)


def authorities() -> bytes:
    """PEM of the CAs to trust: BTRDB_CA_BUNDLE's, else certifi's."""
    own = os.environ.get("BTRDB_CA_BUNDLE", "")
    try:
        with open(own or certifi.where(), "rb") as file:
            found = file.read()
    except OSError as error:
        what = "BTRDB_CA_BUNDLE names %s, which" % own if own else "certifi's bundle"
        raise UntrustedCertificate("%s cannot be read: %s" % (what, error.strerror)) from error
    if b"-----BEGIN CERTIFICATE-----" not in found:
        raise UntrustedCertificate("BTRDB_CA_BUNDLE names %s, which holds no certificate in PEM" % own)
    return found


def _told(conn: Connection, method: str, error: Any) -> EventProcError:
    code, details = error.code(), error.details() or ""
    codes = grpc.StatusCode
    if code == codes.UNAUTHENTICATED:
        return WrongKey("%s does not know this API key (%s)" % (conn.endpoint, details))
    if code == codes.PERMISSION_DENIED:
        return NotYours(details)
    if code == codes.NOT_FOUND:
        return (UnknownRun if method in ("GetRun", "ReadLog") else UnknownHandler)(details)
    if code == codes.RESOURCE_EXHAUSTED:
        return InvalidRegistration(
            "%s takes no message of this size; large data that the function refers to is sent with it: read it inside the "
            "function instead (%s)" % (conn.endpoint, details)
        )
    if code in (codes.INVALID_ARGUMENT, codes.FAILED_PRECONDITION, codes.OUT_OF_RANGE):
        return (InvalidRegistration if method == "Register" else InvalidRequest)(details)
    if code == codes.UNIMPLEMENTED:
        return NoServer("%s answers, but does not serve event processing (%s)" % (conn.endpoint, details))
    if code == codes.UNAVAILABLE:
        return _unreached(conn, details)
    if code == codes.DEADLINE_EXCEEDED:
        return NoServer("%s did not answer within %.0f s" % (conn.endpoint, DEADLINE_S))
    return ServiceFailed("%s answered %s: %s" % (conn.endpoint, code.name, details))


def _unreached(conn: Connection, details: str) -> EventProcError:
    """Why nobody was reached. gRPC's own words change from version to version, so the address is tried once more by hand."""
    host, _, port = conn.endpoint.rpartition(":")
    host = host.strip("[]")
    context = trusting()
    try:
        with socket.create_connection((host, int(port)), PROBE_S) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
    except (OSError, ssl.CertificateError) as error:
        nobody = (
            "no event processing answers at %s: check the endpoint (BTRDB_ENDPOINTS, host:port) and your network (%s)"
        )
        return not_shaken(conn.endpoint, error, nobody)
    return NoServer("%s cannot take the call now; try again in a moment (%s)" % (conn.endpoint, details))


def trusting() -> ssl.SSLContext:
    """What trusts the CAs of authorities() and no others. Raises UntrustedCertificate."""
    # bundles have comments between their certificates, in whatever encoding
    return ssl.create_default_context(cadata=authorities().decode("ascii", "ignore"))


def not_shaken(address: str, error: Exception, nobody: str) -> EventProcError:
    """What an OSError or ssl.CertificateError of connecting and shaking hands over TLS means. nobody: where none answers, for both."""
    # Python 3.6 raises a plain SSLError for an unknown CA, and for a wrong host name a CertificateError that is no OSError
    if isinstance(error, ssl.CertificateError) or getattr(error, "reason", None) == "CERTIFICATE_VERIFY_FAILED":
        return UntrustedCertificate(
            "the certificate of %s is not trusted here: set BTRDB_CA_BUNDLE to the file of its CA, "
            "and use the host name that its certificate is for (%s)" % (address, error)
        )
    if isinstance(error, ssl.SSLError):
        return NoServer("%s answers, but does not speak TLS as the platform does (%s)" % (address, error))
    return NoServer(nobody % (address, error))
