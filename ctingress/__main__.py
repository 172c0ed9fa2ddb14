"""python -m ctingress ARCHIVE.zip --tags a,b | watch DIR | serve: reads settings, wires, runs."""

from __future__ import annotations

import argparse
import functools
import io
import logging
import re
import signal
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import btrdb
import grpc
from btrdb.exceptions import BTrDBError

from ctingress.decode_text import readable_names
from ctingress.describe import HOOK, Described, Unreadable
from ctingress.ingest import Ingested, Options, ingest, rfc3339, tags_of
from ctingress.pack import Packed, Received, pack
from ctingress.refuse import BadArchive
from ctingress.settings import IngressSettings
from ctingress.watch import Watch, watch
from ctingress.when import check_zone
from ctingress.write import NotWritten, key_refused
from schemas.errors import InvalidMessage, TryLater
from stream.connect import open_book, open_broker
from stream.settings import StreamSettings
from telemetry import traces
from telemetry.settings import from_environment

NS = 1_000_000_000


def main() -> int:
    """0: ingested and published; 1: could not be; 2: called wrongly."""
    if sys.argv[1:2] == ["serve"]:
        from ctingress import serve  # a web server's libraries, which the other ways do without

        return serve.main()
    arguments = _arguments()
    _quiet()
    traces.setup("ctingress")
    settings = from_environment(IngressSettings)
    try:
        with tempfile.TemporaryDirectory(prefix="ctingress-") as folder:
            packed = None  # when a folder is watched
            if arguments.watched is None:  # before all else: a wrong file is told even where nothing answers
                packed = _pack(arguments.archive, Path(folder), settings)
            return _with_connections(arguments, settings, packed)
    except BadArchive as error:
        (first,) = readable_names([arguments.archive[0].name])
        return _say(f"{first}: {error}; nothing was written or published")
    finally:
        traces.close()


def _pack(paths: list[Path], folder: Path, settings: IngressSettings) -> Packed:
    try:
        names = readable_names([path.name for path in paths])
        given = [Received(name, path) for name, path in zip(names, paths, strict=True)]
        return pack(given, folder, settings.limits())
    except OSError as error:
        raise BadArchive(f"cannot be read: {error}") from error


def _with_connections(arguments: argparse.Namespace, settings: IngressSettings, packed: Packed | None) -> int:
    """Connects to BTrDB and Kafka, and ingests what was packed, or what comes into the watched folder."""
    stream_settings = from_environment(StreamSettings)
    key = settings.btrdb_api_key.get_secret_value() if settings.btrdb_api_key else None
    try:
        connection = btrdb.connect(settings.btrdb_endpoint, apikey=key)
    except (BTrDBError, OSError, ValueError) as error:
        said = f"BTrDB at {settings.btrdb_endpoint} cannot be used: {_plainly(error)}; nothing was written or published"
        return _say(f"{said}. See BTRDB_ENDPOINTS, BTRDB_API_KEY and BTRDB_CA_BUNDLE")
    broker = open_broker(stream_settings)
    try:
        producer = broker.producer()
        try:
            open_book(stream_settings, broker.admin(), producer).publish([(HOOK, HOOK)])
        except TryLater as error:
            return _say(f"Kafka cannot be used: {error}; nothing was written or published")
        limits = settings.limits()
        take = functools.partial(
            ingest,
            connection=connection,
            producer=producer,
            limits=limits,
            largest_message=stream_settings.max_message_bytes,
            timeout_s=settings.announce_timeout_s,
            progress=_show,
        )
        options = Options(arguments.tags, arguments.prefix, arguments.timezone, arguments.request_id)
        if packed is None:
            return _watch(Watch(arguments.watched, options, take, limits, settle_s=arguments.settle), arguments.every)
        return _ingest(packed, options, take)
    finally:
        broker.close()


def _ingest(packed: Packed, options: Options, take: Callable[..., Ingested]) -> int:
    try:
        ingested = take(packed.path, replace(options, file_name=packed.name))
    except InvalidMessage as error:
        return _say(f"{packed.name}: {error.reason}; nothing was written or published")
    except NotWritten as error:
        return _say(f"{error}; no event was published. Ingesting the archive again adds nothing twice")
    except grpc.RpcError as error:
        return _say(f"{_of_btrdb(error)}; no event was published. Ingesting the archive again adds nothing twice")
    except TryLater as error:
        return _say(f"the data is in BTrDB, but Kafka did not take the event: {error}. Ingest the archive again")
    read = sum(isinstance(data_set, Described) for data_set in ingested.data_sets)
    print(
        f"\n{read} of {len(ingested.data_sets)} data sets ingested; event published with RequestID {ingested.request_id}"
    )
    return 0


def _of_btrdb(error: grpc.RpcError) -> str:
    try:
        return f"BTrDB refuses the key (BTRDB_API_KEY): {key_refused(error)}"
    except TryLater as other:
        return other.reason


def _quiet() -> None:
    """The output is for people: btrdb lets every library log to the terminal as soon as it is imported."""
    logging.getLogger().setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=FutureWarning)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another alphabet than the recorder's


def _arguments() -> argparse.Namespace:
    watching = sys.argv[1:2] == ["watch"]
    parser = argparse.ArgumentParser(
        prog="python -m ctingress watch" if watching else "python -m ctingress",
        description="Ingests each finished file of a folder once, then moves it to done/ or failed/ there."
        if watching
        else "Writes a COMTRADE archive to BTrDB and publishes its event. See also: watch DIR, serve.",
    )
    if watching:
        parser.add_argument("watched", type=_folder, metavar="DIR", help="where files are dropped")
        parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks (default: 2)")
        parser.add_argument(
            "--settle", type=float, default=10.0, help="seconds without a change after which a file is finished"
        )
    else:
        parser.add_argument("archive", type=Path, nargs="+", help="a zip, tar or CFF file, or a CFG and its DAT file")
        parser.set_defaults(watched=None)
    parser.add_argument("--tags", type=_tags, default=(), help="comma-separated; handlers with one of them run")
    parser.add_argument(
        "--prefix", type=_text, default="", help="put before collections, for recorders with placeholder names"
    )
    parser.add_argument(
        "--timezone", type=_zone, help="of recorders that do not tell theirs: America/New_York, +02:00, -5h30"
    )
    parser.add_argument("--request-id", type=_uuid, help="a UUID: the event's id, to send the same event again")
    return parser.parse_args(sys.argv[2:] if watching else sys.argv[1:])


def _watch(folder: Watch, every_s: float) -> int:
    """Until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch(folder.turn, stop.wait, every_s)
    return 0


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return path


def _tags(text: str) -> tuple[str, ...]:
    return tags_of(_text(text))


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not in UTF-8") from None
    return text


def _zone(text: str) -> str:
    try:
        return check_zone(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no UUID") from None


def _show(data_set: Described | Unreadable) -> None:
    if isinstance(data_set, Unreadable):
        print(f"{data_set.name}\n    NOT READ: {data_set.error}")
        return
    config = data_set.config
    analog = sum(channel.kind == "analog" for channel in config.channels)
    seconds = (data_set.end_ns - data_set.start_ns) / NS
    print(f"{data_set.name}")
    print(f"    {config.station} / {config.device}, C37.111-{config.revision} {config.encoding}")
    print(f"    {analog} analog and {len(config.channels) - analog} status channels, {seconds:.3f} s")
    print(f"    from {rfc3339(data_set.start_ns)} ({_where_from(data_set)})")
    if data_set.missing:
        print(f"    {data_set.missing} samples are missing")
    if data_set.streams:
        print(f"    -> {data_set.streams[0].collection}")


def _where_from(described: Described) -> str:
    if described.source == "assumed":
        return "UTC ASSUMED: neither the file nor its name tells an offset; see --timezone"
    told = {"time_code": "the file's time code", "file_name": "the file's name", "option": "--timezone"}
    return f"UTC offset {described.offset} from {told[described.source]}"


def _plainly(error: Exception) -> str:
    """What gRPC was told, without its frame: btrdb passes on the whole of it, over several lines."""
    found = re.search(r'status = StatusCode\.(\w+)\s+details = "(.*)"', str(error))
    return f"{found[2]} ({found[1]})" if found else str(error)


def _say(problem: str, code: int = 1) -> int:
    print(f"ctingress: {problem}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
