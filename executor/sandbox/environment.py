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
    """Of the zygote's process, which a child sees in /proc/self/environ: no secret, nothing of the executor's own.

    Page tables are most of a fork's cost: plain malloc in transparent huge pages makes them small.
    """
    return {
        **_COMMON,
        "PYTHONMALLOC": "malloc",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }


def handler_environment(access: Access, api_key: str, scratch: str, ca_bundle: str) -> Mapping[str, str]:
    """Of the handler, so that btrdb.connect(), Connection() and upload_file work in it.

    scratch, ca_bundle: where the handler finds them.
    """
    environment = {
        **_COMMON,
        "EXECUTOR_CONTEXT": "true",
        "DOWNLOADS_ENDPOINT": access.downloads_endpoint,
        "BTRDB_API_KEY": api_key,
        "HOME": f"{scratch}/home",
        "TMPDIR": scratch,
    }
    if access.endpoint is not None:
        environment["BTRDB_ENDPOINTS"] = access.endpoint
    return {**environment, **connection_environment(access, ca_bundle)}


def connection_environment(access: Access, ca_bundle: str) -> Mapping[str, str]:
    """What the btrdb client looks at while it connects; also of a child that waits for its job."""
    return {} if access.ca_bundle is None else {"BTRDB_CA_BUNDLE": ca_bundle}
