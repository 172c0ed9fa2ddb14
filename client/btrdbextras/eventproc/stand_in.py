"""A BTrDB that holds the streams of the sample event, or of an archive, and nothing else: for trying a function without a platform.

The installed btrdb does all but the last step: its own BTrDB, Stream and StreamSet ask as ever, and a channel answers from memory.
"""

import bisect
import io
import math
import uuid as uuids
from typing import Any, Dict, List, Optional, Sequence, Tuple

from btrdbextras.eventproc import sample

VERSION = 11  # of a stream that has been written once
FIRST_TIME, END_OF_TIME = -(16 << 56), (48 << 56) - 1
NO_SUCH_POINT, NO_SUCH_STREAM, BAD_RANGE, BAD_WIDTH, NO_SUCH_VERSION = 401, 404, 413, 415, 450
Fields = Dict[str, Any]


class Refusal(Exception):
    """What BTrDB answers instead of data; code: its status code."""

    def __init__(self, code: int, text: str) -> None:
        Exception.__init__(self, text)
        self.code = code


def sample_btrdb(held: Optional[Sequence[Any]] = None) -> Any:
    """A btrdb.BTrDB to read from. Where btrdb cannot be imported, something that says so when it is used.

    held: pairs of a stream's entry of Recordings and its points, [(ns, value), ...]. Default: those of the sample event.
    """
    if held is None:
        described = (stream for one in sample.sample_event()["Recordings"] for stream in one["Streams"])
        held = [(stream, sample.samples(stream)) for stream in described]
    try:
        from btrdb.conn import BTrDB
        from btrdb.endpoint import Endpoint
    except Exception as error:  # noqa: BLE001 - an old btrdb beside a new protobuf raises TypeError
        return Absent(error)
    return BTrDB(Endpoint(_Channel(_Answers(held))))


class Absent(object):
    """In the place of btrdb.BTrDB: a function that reads nothing runs all the same."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise ImportError(
            "btrdb cannot be imported here (%s: %s), so that btrdb.%s cannot be had at the desk; the platform's runtimes have it"
            % (type(self._error).__name__, self._error, name)
        )


class _Channel(object):
    """As a grpc.Channel to BTrDB's service."""

    def __init__(self, answers: "_Answers") -> None:
        from btrdb.grpcinterface import btrdb_pb2

        self._answers = answers
        self._messages: Any = btrdb_pb2

    def unary_unary(self, path: str, *_: Any, **__: Any) -> Any:
        """A call that is answered by one message."""
        return lambda params, **_: self._answer(path.rpartition("/")[2], params)

    def unary_stream(self, path: str, *_: Any, **__: Any) -> Any:
        """A call that is answered by several; here by one, or none when it would be empty."""
        return lambda params, **_: iter([self._answer(path.rpartition("/")[2], params)])

    stream_unary, stream_stream = unary_unary, unary_stream

    def _answer(self, method: str, params: Any) -> Any:
        found = getattr(self._answers, method, None)
        if found is None:
            raise PermissionError(
                "the stand-in for BTrDB does no %s: it holds the streams of the event alone, to be read; "
                "try_handler(..., btrdb=conn) reaches the real one" % method
            )
        name = {"GetMetadataUsage": "MetadataUsage"}.get(method, method)
        response = getattr(self._messages, name + "Response")
        try:
            return response(**found(params))
        except Refusal as refusal:
            return response(stat=self._messages.Status(code=refusal.code, msg=str(refusal)))


class _Held(object):
    """A stream: what describes it, its points."""

    def __init__(self, described: Dict[str, Any], points: Sequence[Any]) -> None:
        self.uuid = uuids.UUID(described["Uuid"])
        self.collection = str(described["Collection"])
        self.tags = {"name": described["Name"], "unit": described["Unit"], "ingress": "", "distiller": ""}
        known = {"kind": described["Kind"], "phase": described["Phase"], "ps": described["PS"]}
        self.annotations = {name: value for name, value in known.items() if value}
        ordered = sorted(points)
        self.times = [int(time) for time, _ in ordered]
        self.values = [float(value) for _, value in ordered]

    def between(self, start: int, end: int) -> Tuple[List[int], List[float]]:
        """Times and values with start <= time < end."""
        low, high = bisect.bisect_left(self.times, start), bisect.bisect_left(self.times, end)
        return self.times[low:high], self.values[low:high]

    def windows(self, start: int, end: int, width: int) -> List[Tuple[int, float, float, float, int, float]]:
        """(time, min, mean, max, count, stddev) of the windows from start on that hold something."""
        grouped: Dict[int, List[float]] = {}
        for time, value in zip(*self.between(start, end)):
            grouped.setdefault(start + (time - start) // width * width, []).append(value)
        found = []
        for time, values in sorted(grouped.items()):
            mean = math.fsum(values) / len(values)
            spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
            found.append((time, min(values), mean, max(values), len(values), spread))
        return found

    def snapped(self, start: int, end: int, period: int) -> Dict[int, float]:
        """By multiple of period, the value nearest to it; halfway belongs to the later, of two as near the earlier is taken."""
        nearest: Dict[int, Tuple[int, float]] = {}
        for time, value in zip(*self.between(start - period, end + period)):
            at = (time + period // 2) // period * period
            if start <= at < end and (at not in nearest or abs(time - at) < nearest[at][0]):
                nearest[at] = (abs(time - at), value)
        return {at: value for at, (_, value) in nearest.items()}


class _Answers(object):
    """The calls of BTrDB's service that read, by their names on the wire: a request -> the fields of its response."""

    def __init__(self, held: Sequence[Any]) -> None:
        from btrdb.grpcinterface import btrdb_pb2

        self._messages: Any = btrdb_pb2
        self._held = {one.uuid.bytes: one for one in (_Held(described, points) for described, points in held)}

    def Info(self, _: Any) -> Fields:
        """5.30 and later serve Arrow."""
        return {"majorVersion": 5, "minorVersion": 34 if _pyarrow() is not None else 0, "build": "stand-in"}

    def ListCollections(self, params: Any) -> Fields:
        """Below a prefix."""
        names = {one.collection for one in self._held.values()}
        return {"collections": sorted(name for name in names if name.startswith(params.prefix))}

    def LookupStreams(self, params: Any) -> Fields:
        """By collection, tags and annotations."""

        def fits(one: _Held) -> bool:
            wanted = params.collection
            inside = one.collection.startswith(wanted) if params.isCollectionPrefix else one.collection == wanted
            pairs = [(one.tags, pair) for pair in params.tags] + [
                (one.annotations, pair) for pair in params.annotations
            ]
            return (inside or not wanted) and all(
                pair.key in of and (not pair.HasField("val") or of[pair.key] == pair.val.value) for of, pair in pairs
            )

        return {"results": [self._descriptor(one) for one in self._ordered() if fits(one)]}

    def GetMetadataUsage(self, params: Any) -> Fields:
        """How many streams carry each tag and annotation."""
        found: Dict[str, Dict[str, int]] = {"tags": {}, "annotations": {}}
        for one in self._held.values():
            if one.collection.startswith(params.prefix):
                for kind, pairs in (("tags", one.tags), ("annotations", one.annotations)):
                    for name in (name for name, value in pairs.items() if value):
                        found[kind][name] = found[kind].get(name, 0) + 1
        count = self._messages.KeyCount
        return {kind: [count(key=name, count=number) for name, number in of.items()] for kind, of in found.items()}

    def StreamInfo(self, params: Any) -> Fields:
        """Description and version."""
        one = self._of(params.uuid)
        known = {} if params.omitDescriptor else {"descriptor": self._descriptor(one)}
        return dict(known, versionMajor=0 if params.omitVersion else VERSION)

    def Flush(self, params: Any) -> Fields:
        """Nothing waits."""
        self._of(params.uuid)
        return {"versionMajor": VERSION}

    def Nearest(self, params: Any) -> Fields:
        """At or after a time, or, backward, before it."""
        one = self._of(params.uuid, params.versionMajor)
        if not FIRST_TIME <= params.time <= END_OF_TIME:
            raise Refusal(BAD_RANGE, "time %d is out of range" % params.time)
        at = bisect.bisect_left(one.times, params.time) - (1 if params.backward else 0)
        if not 0 <= at < len(one.times):
            raise Refusal(NO_SUCH_POINT, "there is no point " + ("before" if params.backward else "at or after"))
        return {"versionMajor": VERSION, "value": self._messages.RawPoint(time=one.times[at], value=one.values[at])}

    def RawValues(self, params: Any) -> Fields:
        """Points of a range."""
        point = self._messages.RawPoint
        rows = zip(*self._range(params).between(params.start, params.end))
        return {"versionMajor": VERSION, "values": [point(time=time, value=value) for time, value in rows]}

    def AlignedWindows(self, params: Any) -> Fields:
        """Statistics of windows of a power of two."""
        return {"versionMajor": VERSION, "values": [self._stat(*row) for row in self._aligned(params)]}

    def Windows(self, params: Any) -> Fields:
        """Statistics of windows of any width."""
        return {"versionMajor": VERSION, "values": [self._stat(*row) for row in self._windows(params)]}

    def ArrowRawValues(self, params: Any) -> Fields:
        """Points of a range as an Arrow stream."""
        times, values = self._range(params).between(params.start, params.end)
        return {"versionMajor": VERSION, "arrowBytes": _arrow([("value", values)], times, params.templateBytes)}

    def ArrowMultiValues(self, params: Any) -> Fields:
        """Several streams side by side, NaN where one has nothing."""
        versions = list(params.versionMajor) or [0] * len(params.uuid)
        columns = []
        for raw, version in zip(params.uuid, versions):
            one = self._of(raw, version)
            _check_range(params.start, params.end)
            if params.snapPeriodNs:
                points = one.snapped(params.start, params.end, params.snapPeriodNs)
            else:
                points = dict(zip(*one.between(params.start, params.end)))
            columns.append((str(one.uuid), points))
        times = sorted({time for _, points in columns for time in points})
        filled = [(name, [points.get(time, math.nan) for time in times]) for name, points in columns]
        return {"arrowBytes": _arrow(filled, times, params.templateBytes)}

    def ArrowAlignedWindows(self, params: Any) -> Fields:
        """The same as an Arrow stream."""
        return {"versionMajor": VERSION, "arrowBytes": _arrow_windows(self._aligned(params))}

    def ArrowWindows(self, params: Any) -> Fields:
        """The same as an Arrow stream."""
        return {"versionMajor": VERSION, "arrowBytes": _arrow_windows(self._windows(params))}

    def _of(self, raw: bytes, version: int = 0) -> _Held:
        if raw not in self._held:
            raise Refusal(
                NO_SUCH_STREAM,
                "stream does not exist: the stand-in for BTrDB holds the streams of the event alone; "
                "try_handler(..., btrdb=conn) reads real ones",
            )
        if version not in (0, VERSION):
            raise Refusal(NO_SUCH_VERSION, "version %d is not available; the stream has %d" % (version, VERSION))
        return self._held[raw]

    def _range(self, params: Any) -> _Held:
        _check_range(params.start, params.end)
        return self._of(params.uuid, params.versionMajor)

    def _aligned(self, params: Any) -> List[Any]:
        if params.pointWidth > 63:
            raise Refusal(BAD_WIDTH, "pointwidth is %d; it should be 0 to 63" % params.pointWidth)
        width = 1 << params.pointWidth
        return self._range(params).windows(params.start // width * width, params.end // width * width, width)

    def _windows(self, params: Any) -> List[Any]:
        if not 0 < params.width < 1 << 63:
            raise Refusal(BAD_WIDTH, "width is %d ns; it should be positive" % params.width)
        whole = (params.end - params.start) // params.width * params.width
        return self._range(params).windows(params.start, params.start + whole, params.width)

    def _stat(self, time: int, least: float, mean: float, most: float, count: int, spread: float) -> Any:
        return self._messages.StatPoint(time=time, min=least, mean=mean, max=most, count=count, stddev=spread)

    def _ordered(self) -> List[_Held]:
        return sorted(self._held.values(), key=lambda one: (one.collection, one.tags["name"]))

    def _descriptor(self, one: _Held) -> Any:
        pair, text = self._messages.KeyOptValue, self._messages.OptValue
        return self._messages.StreamDescriptor(
            uuid=one.uuid.bytes,
            collection=one.collection,
            tags=[pair(key=name, val=text(value=value)) for name, value in one.tags.items()],
            annotations=[pair(key=name, val=text(value=value)) for name, value in one.annotations.items()],
            propertyVersion=1,
        )


def _check_range(start: int, end: int) -> None:
    if not FIRST_TIME <= start < end <= END_OF_TIME:
        raise Refusal(
            BAD_RANGE, "start %d and end %d should be in order, from %d to %d" % (start, end, FIRST_TIME, END_OF_TIME)
        )


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        return None
    return pyarrow


def _arrow(columns: Sequence[Tuple[str, List[float]]], times: List[int], template: bytes) -> bytes:
    """An Arrow stream of a time column and others, in the template's schema where there is one."""
    arrow = _pyarrow()
    fields = [arrow.field("time", arrow.timestamp("ns", tz="UTC"), nullable=False)]
    fields += [arrow.field(name, arrow.float64(), nullable=False) for name, _ in columns]
    return _streamed(arrow.schema(fields), [times] + [values for _, values in columns], template)


def _arrow_windows(rows: List[Any]) -> bytes:
    arrow = _pyarrow()
    fields = [arrow.field("time", arrow.timestamp("ns", tz="UTC"), nullable=False)]
    for name in ("min", "mean", "max", "count", "stddev"):
        kind = arrow.uint64() if name == "count" else arrow.float64()
        fields.append(arrow.field(name, kind, nullable=False))
    return _streamed(arrow.schema(fields), [list(column) for column in zip(*rows)] or [[]] * 6, b"")


def _streamed(schema: Any, columns: List[Any], template: bytes) -> bytes:
    arrow = _pyarrow()
    arrays = [arrow.array(column, field.type) for column, field in zip(columns, schema)]
    table = arrow.Table.from_arrays(arrays, schema=schema)
    if template:
        with arrow.ipc.open_stream(template) as reader:
            table = table.rename_columns(reader.schema.names).cast(reader.schema, safe=False)
    sink = io.BytesIO()
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
