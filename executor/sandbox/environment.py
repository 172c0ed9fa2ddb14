"""The environment of zygote and handler: these names and no others."""

from __future__ import annotations

from collections.abc import Mapping

from executor.sandbox.job import Access

SCRATCH = "/tmp"
HOME = f"{SCRATCH}/home"
CA_BUNDLE = "/etc/eventproc/btrdb-ca.pem"
"""Where these stand in a root of the run's own."""

_COMMON = {
    "MPLBACKEND": "Agg",
    "TZ": "UTC",
    "LANG": "C.UTF-8",
    # threads must not exist before a fork, and a run has one slot of a machine
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}


def zygote_environment() -> Mapping[str, str]:
    """Of the zygote's process, which a child sees in /proc/self/environ: no secret, nothing of the executor's own."""
    return dict(_COMMON)


def job_environment(access: Access, api_key: str, scratch: str, ca_bundle: str) -> Mapping[str, str]:
    """What a job adds to the environment of the child that waited for it, so that all is there that a handler needs."""
    waiting = waiting_environment(access, SCRATCH, ca_bundle)
    own = waiting_environment(access, scratch, ca_bundle)
    return {"BTRDB_API_KEY": api_key, **{name: value for name, value in own.items() if waiting.get(name) != value}}


def waiting_environment(access: Access, scratch: str, ca_bundle: str) -> Mapping[str, str]:
    """Of a child that waits for its job: so that btrdb.connect(), Connection() and upload_file work, without the key.

    scratch, ca_bundle: where the handler finds them.
    """
    environment = {
        **_COMMON,
        "EXECUTOR_CONTEXT": "true",
        "DOWNLOADS_ENDPOINT": access.downloads_endpoint,
        "HOME": f"{scratch}/home",
        "TMPDIR": scratch,
    }
    if access.endpoint is not None:
        environment["BTRDB_ENDPOINTS"] = access.endpoint
    if access.ca_bundle is not None:
        environment["BTRDB_CA_BUNDLE"] = ca_bundle
    return environment
