"""The two servers: users' and executors', each on a port of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from callers import ApiKeys
from ledger import Ledger
from ledger.rules import Rules
from registry.auth import ServiceTokens
from registry.checks import Checks, Elsewhere
from registry.internal import Executors
from registry.options import Most
from registry.public import EventProcessing
from registry.settings import MIB, RegistrySettings
from registry.validate import Accepts
from schemas.generated.eventprocapi_pb2_grpc import add_EventProcessingServiceServicer_to_server
from schemas.generated.executorapi_pb2_grpc import add_ExecutorServiceServicer_to_server
from telemetry import certificates, metrics


@dataclass(frozen=True)
class Servers:
    """Both, serving; public and internal are the ports they listen at."""

    public: int
    internal: int
    running: tuple[grpc.Server, ...]
    checks: Checks

    def stop(self, grace_s: float) -> None:
        """Takes no more calls; blocks until those under way have ended, grace_s at most."""
        self.checks.close()
        for ended in [server.stop(grace_s) for server in self.running]:
            ended.wait()


def serve(settings: RegistrySettings, ledger: Ledger, rules: Rules) -> Servers:
    """Starts both servers. Raises ValueError when TLS is wanted without a certificate, OSError when an address is taken."""
    most = Most(
        settings.most_timeout_s, settings.most_memory_bytes, settings.most_retries, settings.most_retry_delay_s,
        rules.per_handler,
    )  # fmt: skip
    accepts = Accepts(
        settings.runtime_names(), settings.ambiguous_python, settings.mail_domains, settings.blob_bytes, most
    )
    checks = Checks(settings.check_s, max(1, settings.threads // 2), Elsewhere(ledger, rules))
    keys = ApiKeys(settings.keys_file)
    metrics.api_key_not_after_seconds.set_function(keys.first_end)
    metrics.api_keys_unreadable.set_function(lambda: not keys.readable())
    served = certificates.Served(settings.cert, settings.key) if settings.cert is not None else None
    public = _server(settings.threads, settings.blob_bytes + MIB)
    add_EventProcessingServiceServicer_to_server(
        EventProcessing(ledger, keys, accepts, checks, settings.downloads_endpoint), public
    )
    internal = _server(settings.threads, settings.answer_bytes)
    add_ExecutorServiceServicer_to_server(
        Executors(ledger, ServiceTokens(settings.tokens_file), rules, settings.answer_bytes, checks), internal
    )
    ports = (
        _listen(public, settings.listen, settings.public_tls, served),
        _listen(internal, settings.internal_listen, settings.internal_tls, served),
    )
    public.start()
    internal.start()
    return Servers(ports[0], ports[1], (public, internal), checks)


def _server(threads: int, limit: int) -> grpc.Server:
    options = [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        ("grpc.so_reuseport", 0),  # an address that is taken is an error, not half of the calls
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
    return grpc.server(ThreadPoolExecutor(threads, thread_name_prefix="grpc"), options=options)


def _listen(server: grpc.Server, address: str, tls: bool, served: certificates.Served | None) -> int:
    try:
        if not tls:
            return server.add_insecure_port(address)
        if served is None:
            raise ValueError(
                "TLS needs REGISTRY_CERT and REGISTRY_KEY (or REGISTRY_PUBLIC_TLS=false behind a route that ends TLS)"
            )
        return server.add_secure_port(address, _credentials(served))
    except RuntimeError as error:
        raise OSError(f"cannot listen at {address}: {error}") from error


def _credentials(served: certificates.Served) -> grpc.ServerCredentials:
    """They show on each new connection what is served then."""
    shown = served.material()

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(shown.key, shown.chain)])

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        present = served.material()
        if present is shown:
            return None  # as it was
        shown = present
        return configuration()

    return grpc.dynamic_ssl_server_credentials(configuration(), fetch)  # type: ignore[arg-type]  # its stub knows no None
