"""BTrDB's gRPC service (package v5api) over the store, with the messages of the public client's own wheel."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc
import numpy as np
from btrdb.grpcinterface import btrdb_pb2 as pb
from btrdb.grpcinterface.btrdb_pb2_grpc import BTrDBServicer

from devstack.btrdb import refusals, streams, tables
from devstack.btrdb.points import MAXIMUM_TIME, MINIMUM_TIME, Points, WindowStats, snap
from devstack.btrdb.refusals import Refusal
from devstack.btrdb.store import Store, check_range
from devstack.keys import Holder, KeyFile
from telemetry import traces

MAJOR, MINOR = 5, 34
BUILD = "5.34.0-development-server"
_POINTS_A_MESSAGE = 5_000
_ROWS_A_MESSAGE = 50_000
_NAMES_A_MESSAGE = 1_000


def _traced(method: Callable[..., Any], context: grpc.ServicerContext) -> AbstractContextManager[Any]:
    """A span for a call that came with a trace, where spans are sent (telemetry/traces.py)."""
    parent = str(dict(context.invocation_metadata()).get(traces.TRACEPARENT, ""))
    return traces.span(f"btrdb {method.__name__}", parent, "server") if parent else contextlib.nullcontext()


def _answered(response: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lets in who may; turns a Refusal into the response's status."""

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def answer(self: Btrdb, request: Any, context: grpc.ServicerContext) -> Any:
            holder = self.admit(request, context)
            try:
                with _traced(method, context):
                    return method(self, request, holder)
            except Refusal as refusal:
                return response(stat=_status(refusal))

        return answer

    return wrap


def _streamed(response: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lets in who may; turns a Refusal into the status of a last response."""

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def answer(self: Btrdb, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            holder = self.admit(request, context)
            try:
                with _traced(method, context):
                    yield from method(self, request, holder)
            except Refusal as refusal:
                yield response(stat=_status(refusal))

        return answer

    return wrap


def _status(refusal: Refusal) -> pb.Status:
    return pb.Status(code=refusal.code, msg=refusal.text)


class Btrdb(BTrDBServicer):  # type: ignore[misc]
    """One development server; address is host:port as clients reach it."""

    def __init__(self, store: Store, address: str, keys: KeyFile) -> None:
        self._store = store
        self._address = address
        self._keys = keys

    def admit(self, request: Any, context: grpc.ServicerContext) -> Holder:
        """Whose key the call came with. Aborts the call, in BTrDB's words, when it is nobody's, or when the request names a
        stream or a collection that is not the holder's to see."""
        given = str(dict(context.invocation_metadata()).get("authorization", ""))
        scheme, _, key = given.partition(" ")
        holder = self._keys.holder_of(key.strip()) if scheme.lower() == "bearer" else None
        if holder is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid api key")
            raise AssertionError("abort raises")
        for collection in self._named(request) if holder.collections is not None else ():
            if not holder.may(collection):
                text = f"the key of {holder.user} may not see collection {collection}"
                context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
        return holder

    def _named(self, request: Any) -> Iterator[str]:
        """The collections that a request would read or change; those of lists are left to the list."""
        raw = getattr(request, "uuid", b"")
        for one in [raw] if isinstance(raw, bytes) else raw:
            with contextlib.suppress(Refusal):  # what is not there is refused by the call itself
                yield streams.describe(self._store, _uuid(one)).collection
        if isinstance(request, pb.CreateParams | pb.SetStreamTagsParams) and request.collection:
            yield request.collection

    @_answered(pb.InfoResponse)
    def Info(self, request: Any, holder: Holder) -> Any:
        """Version and address."""
        return pb.InfoResponse(
            majorVersion=MAJOR, minorVersion=MINOR, build=BUILD, proxy=pb.ProxyInfo(proxyEndpoints=[self._address])
        )

    # -- points ------------------------------------------------------------------------------------------------------

    @_streamed(pb.RawValuesResponse)
    def RawValues(self, request: Any, holder: Holder) -> Iterator[Any]:
        """Points of a range."""
        parts, version = self._range(request, _POINTS_A_MESSAGE)
        for part in parts:
            values = [
                pb.RawPoint(time=t, value=v) for t, v in zip(part.times.tolist(), part.values.tolist(), strict=True)
            ]
            yield pb.RawValuesResponse(versionMajor=version, values=values)

    @_streamed(pb.ArrowRawValuesResponse)
    def ArrowRawValues(self, request: Any, holder: Holder) -> Iterator[Any]:
        """Points of a range as Arrow tables."""
        parts, version = self._range(request, _ROWS_A_MESSAGE)
        for part in parts:
            table = tables.points_table(part, request.templateBytes)
            yield pb.ArrowRawValuesResponse(versionMajor=version, arrowBytes=table)

    @_streamed(pb.ArrowMultiValuesResponse)
    def ArrowMultiValues(self, request: Any, holder: Holder) -> Iterator[Any]:
        """Several streams side by side, snapped to a period when one is given."""
        check_range(request.start, request.end)
        versions = list(request.versionMajor) or [0] * len(request.uuid)
        if len(versions) != len(request.uuid):
            raise Refusal(refusals.WRONG_ARGS, f"{len(request.uuid)} streams, but {len(versions)} versions")
        if not 0 <= request.snapPeriodNs < 1 << 61:
            raise Refusal(refusals.WRONG_ARGS, f"snapPeriodNs is {request.snapPeriodNs}; it should be 0 to 2**61 - 1")
        found = []
        for raw, version in zip(request.uuid, versions, strict=True):
            view, _ = self._store.at(_uuid(raw), version)
            period = request.snapPeriodNs
            points = view.between(request.start - period, request.end + period)
            if period:
                points = snap(points, request.start, request.end, period)
            found.append((uuid.UUID(bytes=raw), points))
        if any(len(points) for _, points in found):
            yield pb.ArrowMultiValuesResponse(arrowBytes=tables.joined_table(found, request.templateBytes))

    @_streamed(pb.AlignedWindowsResponse)
    def AlignedWindows(self, request: Any, holder: Holder) -> Iterator[Any]:
        """Statistics of windows of a power of two."""
        found, version = self._aligned(request)
        for part in _stat_points(found):
            yield pb.AlignedWindowsResponse(versionMajor=version, values=part)

    @_streamed(pb.ArrowAlignedWindowsResponse)
    def ArrowAlignedWindows(self, request: Any, holder: Holder) -> Iterator[Any]:
        """The same as an Arrow table."""
        found, version = self._aligned(request)
        if len(found.times):
            yield pb.ArrowAlignedWindowsResponse(versionMajor=version, arrowBytes=tables.windows_table(found))

    @_streamed(pb.WindowsResponse)
    def Windows(self, request: Any, holder: Holder) -> Iterator[Any]:
        """Statistics of windows of any width; depth is an optimisation of BTrDB's that is not needed here."""
        found, version = self._windows(request)
        for part in _stat_points(found):
            yield pb.WindowsResponse(versionMajor=version, values=part)

    @_streamed(pb.ArrowWindowsResponse)
    def ArrowWindows(self, request: Any, holder: Holder) -> Iterator[Any]:
        """The same as an Arrow table."""
        found, version = self._windows(request)
        if len(found.times):
            yield pb.ArrowWindowsResponse(versionMajor=version, arrowBytes=tables.windows_table(found))

    @_answered(pb.NearestResponse)
    def Nearest(self, request: Any, holder: Holder) -> Any:
        """The first point at or after a time, or, backward, the last one before it."""
        if not MINIMUM_TIME <= request.time <= MAXIMUM_TIME:
            text = f"time {request.time} is outside {MINIMUM_TIME} to {MAXIMUM_TIME}"
            raise Refusal(refusals.INVALID_TIME_RANGE, text)
        view, version = self._store.at(_uuid(request.uuid), request.versionMajor)
        found = view.nearest(request.time, request.backward)
        if found is None:
            raise Refusal(
                refusals.NO_SUCH_POINT, "there is no point " + ("before" if request.backward else "at or after")
            )
        value = pb.RawPoint(time=found[0], value=found[1])
        return pb.NearestResponse(versionMajor=version, value=value)

    @_answered(pb.InsertResponse)
    def Insert(self, request: Any, holder: Holder) -> Any:
        """Adds points."""
        count = len(request.values)
        times = np.fromiter((point.time for point in request.values), np.int64, count)
        values = np.fromiter((point.value for point in request.values), np.float64, count)
        return self._insert(request, Points(times, values))

    @_answered(pb.InsertResponse)
    def ArrowInsert(self, request: Any, holder: Holder) -> Any:
        """Adds the points of an Arrow table."""
        return self._insert(request, tables.read_points(request.arrowBytes))

    @_answered(pb.DeleteResponse)
    def Delete(self, request: Any, holder: Holder) -> Any:
        """Takes out the points of a range."""
        return pb.DeleteResponse(versionMajor=self._store.delete(_uuid(request.uuid), request.start, request.end))

    @_answered(pb.FlushResponse)
    def Flush(self, request: Any, holder: Holder) -> Any:
        """Every insert is durable and visible already: gives the version."""
        return pb.FlushResponse(versionMajor=self._store.version(_uuid(request.uuid)))

    @_streamed(pb.ChangesResponse)
    def Changes(self, request: Any, holder: Holder) -> Iterator[Any]:
        """Ranges that changed between two versions, to 2**resolution ns."""
        _check_width(request.resolution)
        uu = _uuid(request.uuid)
        ranges: list[tuple[int, int]] = []
        for first, last in self._store.changed(uu, request.fromMajor, request.toMajor):
            # the coarsest windows begin before time does and end after it
            start = max(first >> request.resolution << request.resolution, MINIMUM_TIME)
            end = min(((last >> request.resolution) + 1) << request.resolution, MAXIMUM_TIME + 1)
            if ranges and start <= ranges[-1][1]:
                ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
            else:
                ranges.append((start, end))
        version = request.toMajor or self._store.version(uu)
        for part in _batches(ranges, _NAMES_A_MESSAGE):
            changed = [pb.ChangedRange(start=start, end=end) for start, end in part]
            yield pb.ChangesResponse(versionMajor=version, ranges=changed)

    # -- metadata ----------------------------------------------------------------------------------------------------

    @_answered(pb.StreamInfoResponse)
    def StreamInfo(self, request: Any, holder: Holder) -> Any:
        """Description and version of a stream."""
        uu = _uuid(request.uuid)
        found = streams.describe(self._store, uu)
        version = 0 if request.omitVersion else self._store.version(uu)
        descriptor = None if request.omitDescriptor else _descriptor(found)
        return pb.StreamInfoResponse(versionMajor=version, descriptor=descriptor)

    @_answered(pb.CreateResponse)
    def Create(self, request: Any, holder: Holder) -> Any:
        """Makes a stream."""
        tags, annotations = _pairs(request.tags), _pairs(request.annotations)
        streams.create(self._store, _uuid(request.uuid), request.collection, tags, annotations)
        return pb.CreateResponse()

    @_answered(pb.SetStreamAnnotationsResponse)
    def SetStreamAnnotations(self, request: Any, holder: Holder) -> Any:
        """Changes annotations."""
        changes, removals = _pairs(request.changes), list(request.removals)
        streams.set_annotations(self._store, _uuid(request.uuid), request.expectedPropertyVersion, changes, removals)
        return pb.SetStreamAnnotationsResponse()

    @_answered(pb.SetStreamTagsResponse)
    def SetStreamTags(self, request: Any, holder: Holder) -> Any:
        """Changes tags and collection."""
        tags, removals = _pairs(request.tags), list(request.remove)
        expected = request.expectedPropertyVersion
        streams.set_tags(self._store, _uuid(request.uuid), expected, tags, request.collection, removals)
        return pb.SetStreamTagsResponse()

    @_streamed(pb.ListCollectionsResponse)
    def ListCollections(self, request: Any, holder: Holder) -> Iterator[Any]:
        """Collections below a prefix."""
        for part in _batches(streams.collections(self._store, request.prefix, holder), _NAMES_A_MESSAGE):
            yield pb.ListCollectionsResponse(collections=part)

    @_streamed(pb.LookupStreamsResponse)
    def LookupStreams(self, request: Any, holder: Holder) -> Iterator[Any]:
        """Streams by collection, tags and annotations."""
        tags, annotations = _pairs(request.tags), _pairs(request.annotations)
        where = (request.collection, request.isCollectionPrefix)
        found = streams.look_up(self._store, *where, tags, annotations, holder)
        for part in _batches(found, _NAMES_A_MESSAGE):
            yield pb.LookupStreamsResponse(results=[_descriptor(stream) for stream in part])

    @_answered(pb.MetadataUsageResponse)
    def GetMetadataUsage(self, request: Any, holder: Holder) -> Any:
        """How often each tag and annotation is used below a prefix."""
        tags, annotations = streams.usage(self._store, request.prefix, holder)
        return pb.MetadataUsageResponse(
            tags=[pb.KeyCount(key=key, count=count) for key, count in tags.items()],
            annotations=[pb.KeyCount(key=key, count=count) for key, count in annotations.items()],
        )

    @_streamed(pb.SQLQueryResponse)
    def SQLQuery(self, request: Any, holder: Holder) -> Iterator[Any]:
        """Rows of a SELECT over table streams."""
        rows = list(streams.query(self._store, request.query, list(request.params), holder))
        for part in _batches(rows, _NAMES_A_MESSAGE):
            yield pb.SQLQueryResponse(SQLQueryRow=part)

    @_answered(pb.ObliterateResponse)
    def Obliterate(self, request: Any, holder: Holder) -> Any:
        """Removes a stream for ever."""
        self._store.obliterate(_uuid(request.uuid))
        return pb.ObliterateResponse()

    # -- what the calls share ----------------------------------------------------------------------------------------

    def _range(self, request: Any, size: int) -> tuple[Iterator[Points], int]:
        check_range(request.start, request.end)
        view, version = self._store.at(_uuid(request.uuid), request.versionMajor)
        return view.parts(request.start, request.end, size), version

    def _aligned(self, request: Any) -> tuple[WindowStats, int]:
        check_range(request.start, request.end)
        _check_width(request.pointWidth)
        check_range(
            request.start >> request.pointWidth << request.pointWidth, request.end
        )  # a first window that begins too early
        view, version = self._store.at(_uuid(request.uuid), request.versionMajor)
        return view.aligned_windows(request.start, request.end, request.pointWidth), version

    def _windows(self, request: Any) -> tuple[WindowStats, int]:
        check_range(request.start, request.end)
        if not 0 < request.width < 1 << 63:
            raise Refusal(refusals.INVALID_POINT_WIDTH, f"width is {request.width} ns; it should be 1 to 2**63 - 1")
        if request.depth > 63:
            raise Refusal(refusals.INVALID_POINT_WIDTH, f"depth is {request.depth}; it should be 0 to 63")
        view, version = self._store.at(_uuid(request.uuid), request.versionMajor)
        return view.windows(request.start, request.end, request.width), version

    def _insert(self, request: Any, points: Points) -> Any:
        if request.HasField("rounding"):
            raise Refusal(refusals.NOT_IMPLEMENTED, "the development server does not round on insert")
        version = self._store.insert(_uuid(request.uuid), points, request.merge_policy)
        return pb.InsertResponse(versionMajor=version)


def _uuid(raw: bytes) -> str:
    if len(raw) != 16:
        raise Refusal(refusals.WRONG_ARGS, f"uuid has {len(raw)} bytes; it should have 16")
    return str(uuid.UUID(bytes=raw))


def _check_width(pointwidth: int) -> None:
    if pointwidth > 63:
        raise Refusal(refusals.INVALID_POINT_WIDTH, f"pointwidth is {pointwidth}; it should be 0 to 63")


def _pairs(sent: Iterable[Any]) -> dict[str, str | None]:
    return {pair.key: pair.val.value if pair.HasField("val") else None for pair in sent}


def _descriptor(found: streams.Description) -> Any:
    return pb.StreamDescriptor(
        uuid=uuid.UUID(found.uuid).bytes,
        collection=found.collection,
        tags=[pb.KeyOptValue(key=key, val=pb.OptValue(value=value)) for key, value in found.tags.items()],
        annotations=[
            pb.KeyOptValue(key=key, val=None if value is None else pb.OptValue(value=value))
            for key, value in found.annotations.items()
        ],
        propertyVersion=found.property_version,
    )


def _stat_points(found: WindowStats) -> Iterator[list[Any]]:
    columns = (found.times, found.minimum, found.mean, found.maximum, found.count, found.stddev)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return _batches(
        (pb.StatPoint(time=t, min=a, mean=b, max=c, count=n, stddev=s) for t, a, b, c, n, s in rows), _POINTS_A_MESSAGE
    )


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
