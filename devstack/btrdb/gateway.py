"""Event processing at BTrDB's address: calls of its service go on to the registry as they are, bytes for bytes.

In production a route of the ingress does this (docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

PREFIX = "/eventprocapi.EventProcessingService/"
_FORWARDED = ("authorization", "traceparent")
_PATIENCE_S = 60.0


class Gateway(grpc.GenericRpcHandler):
    """Forwards unary calls below PREFIX to the registry at address (host:port, TLS by the CA in file ca)."""

    def __init__(self, address: str, ca: Path) -> None:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()), options)

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call that is ours, else None."""
        method = handler_call_details.method
        if not method.startswith(PREFIX):
            return None
        return grpc.unary_unary_rpc_method_handler(self._forward(self._channel.unary_unary(method)))

    def _forward(self, call: Callable[..., bytes]) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def forward(request: bytes, context: grpc.ServicerContext) -> bytes:
            metadata = [pair for pair in context.invocation_metadata() if pair[0] in _FORWARDED]
            left = context.time_remaining()
            try:
                return call(request, metadata=metadata, timeout=min(left or _PATIENCE_S, _PATIENCE_S))
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                details = error.details() or ""
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    details = f"the registry cannot be reached: {details}"
                context.abort(error.code(), details)
                raise AssertionError("abort raises") from error

        return forward
