"""Calls to the platform: dialling, deadlines, and errors that say what to do."""

from __future__ import annotations

import os
from typing import Any

import certifi
import grpc

from btrdbextras.conn import Connection
from btrdbextras.errors import (
    EventProcError,
    InvalidRegistration,
    NoServer,
    NotYours,
    ServiceFailed,
    UnknownHandler,
    UntrustedCertificate,
    WrongKey,
)
from btrdbextras.eventproc import wire

DEADLINE_S = 60.0
_MIB = 1024 * 1024


def call(conn: Connection, method: str, request: Any) -> Any:
    """The answer to a request of the service; blocks for at most a minute. Raises EventProcError."""
    response = wire.message(method + "Response")
    channel = _dial(conn)
    try:
        ask = channel.unary_unary(
            wire.SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return ask(request, timeout=DEADLINE_S)
    except grpc.RpcError as error:
        raise _told(conn, error) from error
    finally:
        channel.close()


def _dial(conn: Connection) -> Any:
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(_authorities()), grpc.access_token_call_credentials(conn.apikey)
    )
    options = [("grpc.max_receive_message_length", 64 * _MIB), ("grpc.max_send_message_length", -1)]
    return grpc.secure_channel(conn.endpoint, credentials, options)


def _authorities() -> bytes:
    """PEM of the CAs to trust: BTRDB_CA_BUNDLE's, else certifi's."""
    own = os.environ.get("BTRDB_CA_BUNDLE", "")
    try:
        with open(own or certifi.where(), "rb") as file:
            return file.read()
    except OSError as error:
        what = "BTRDB_CA_BUNDLE names %s, which" % own if own else "certifi's bundle"
        raise UntrustedCertificate("%s cannot be read: %s" % (what, error.strerror)) from error


def _told(conn: Connection, error: Any) -> EventProcError:
    code, details = error.code(), error.details() or ""
    codes = grpc.StatusCode
    if code == codes.UNAUTHENTICATED:
        return WrongKey("%s does not know this API key (%s)" % (conn.endpoint, details))
    if code == codes.PERMISSION_DENIED:
        return NotYours(details)
    if code == codes.NOT_FOUND:
        return UnknownHandler(details)
    if code in (codes.INVALID_ARGUMENT, codes.RESOURCE_EXHAUSTED, codes.FAILED_PRECONDITION, codes.OUT_OF_RANGE):
        return InvalidRegistration(details)
    if code == codes.UNIMPLEMENTED:
        return NoServer("%s answers, but does not serve event processing (%s)" % (conn.endpoint, details))
    if code == codes.UNAVAILABLE and ("CERTIFICATE" in details.upper() or "HANDSHAKE" in details.upper()):
        return UntrustedCertificate(
            "%s does not prove who it is by a certificate that is trusted here: set BTRDB_CA_BUNDLE to the file of its CA, "
            "and use the host name that its certificate is for (%s)" % (conn.endpoint, details)
        )
    if code == codes.UNAVAILABLE:
        return NoServer(
            "no event processing answers at %s: check the endpoint (BTRDB_ENDPOINTS, host:port) and your network (%s)"
            % (conn.endpoint, details)
        )
    if code == codes.DEADLINE_EXCEEDED:
        return NoServer("%s did not answer within %.0f s" % (conn.endpoint, DEADLINE_S))
    return ServiceFailed("%s answered %s: %s" % (conn.endpoint, code.name, details))
