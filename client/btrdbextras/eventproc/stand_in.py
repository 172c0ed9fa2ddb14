"""A BTrDB that holds the streams of the sample event, or of an archive, and nothing else: for trying a function without a platform."""

import collections
import contextlib
import uuid as uuids
from typing import Any, Dict, List, Optional, Sequence

from btrdbextras.eventproc import sample

RawPoint: Any = collections.namedtuple("RawPoint", "time value")
StatPoint: Any = collections.namedtuple("StatPoint", "time min mean max count stddev")
_nanoseconds: Any = int  # of a datetime, too, where btrdb is at hand
# an old btrdb beside a new protobuf raises TypeError; reading the sample needs it for its own types alone
with contextlib.suppress(Exception):
    from btrdb import point
    from btrdb.utils import timez

    RawPoint, StatPoint = point.RawPoint, point.StatPoint  # type: ignore[misc]
    _nanoseconds = timez.to_nanoseconds

VERSION = 10


class SampleBTrDB(object):
    """Reads as btrdb.BTrDB does: streams(), stream_from_uuid(), streams_in_collection(), list_collections(), info()."""

    def __init__(self, held: Optional[Sequence[Any]] = None) -> None:
        """held: pairs of a stream's entry of Recordings and its points, [(ns, value), ...]. Default: those of the sample event."""
        if held is None:
            described = (stream for one in sample.sample_event()["Recordings"] for stream in one["Streams"])
            held = [(stream, sample.samples(stream)) for stream in described]
        self._streams = {stream["Uuid"]: SampleStream(stream, points) for stream, points in held}

    def stream_from_uuid(self, uuid: Any) -> "SampleStream":
        """One of the sample's streams. Raises LookupError for any other."""
        if str(uuid) not in self._streams:
            raise LookupError(
                "the stand-in for BTrDB holds the streams of the event alone; try_handler(..., btrdb=conn) reads real ones"
            )
        return self._streams[str(uuid)]

    def streams(self, *identifiers: Any, **_: Any) -> List["SampleStream"]:
        """By UUIDs."""
        return [self.stream_from_uuid(one) for one in identifiers]

    def list_collections(self, starts_with: str = "") -> List[str]:
        """Names of collections."""
        return sorted({one.collection for one in self._streams.values() if one.collection.startswith(starts_with)})

    def streams_in_collection(self, *collection: str, **given: Any) -> List["SampleStream"]:
        """Those in, or with is_collection_prefix (the default) beneath, the collections; tags: name and unit to have."""
        tags, prefix = given.get("tags") or {}, given.get("is_collection_prefix", True)
        return [
            one
            for one in self._streams.values()
            if (
                not collection
                or any(one.collection == c or (prefix and one.collection.startswith(c)) for c in collection)
            )
            and all(one.tags()[0].get(name) == value for name, value in tags.items())
        ]

    def info(self) -> Dict[str, Any]:
        """What the server says of itself."""
        return {"majorVersion": 5, "minorVersion": 0, "build": "stand-in"}


class SampleStream(object):
    """Reads as btrdb.stream.Stream does; it cannot be written."""

    def __init__(self, described: Dict[str, Any], points: List[Any]) -> None:
        self._described = described
        self._points = points
        self.uuid = uuids.UUID(described["Uuid"])
        self.collection = str(described["Collection"])
        self.name = str(described["Name"])
        self.unit = str(described["Unit"])

    def _between(self, start: Any, end: Any) -> List[Any]:
        first, last = _nanoseconds(start), _nanoseconds(end)
        return [point for point in self._points if first <= point[0] < last]

    def values(self, start: Any, end: Any, version: int = 0) -> List[Any]:
        """[(RawPoint, version), ...] with start <= time < end."""
        return [(RawPoint(time, value), VERSION) for time, value in self._between(start, end)]

    def aligned_windows(self, start: Any, end: Any, pointwidth: int, version: int = 0) -> List[Any]:
        """[(StatPoint, version), ...] of windows of 2**pointwidth ns that begin at multiples of that."""
        width = 1 << int(pointwidth)
        return self._windows(_nanoseconds(start) // width * width, _nanoseconds(end) // width * width, width)

    def windows(self, start: Any, end: Any, width: int, depth: int = 0, version: int = 0) -> List[Any]:
        """[(StatPoint, version), ...] of windows of width ns from start on."""
        first = _nanoseconds(start)
        return self._windows(first, first + (_nanoseconds(end) - first) // width * width, int(width))

    def _windows(self, first: int, last: int, width: int) -> List[Any]:
        grouped: Dict[int, List[float]] = {}
        for time, value in self._between(first, last):
            grouped.setdefault(first + (time - first) // width * width, []).append(value)
        found = []
        for time, held in sorted(grouped.items()):
            mean = sum(held) / len(held)
            spread = (sum((value - mean) ** 2 for value in held) / len(held)) ** 0.5
            found.append((StatPoint(time, min(held), mean, max(held), len(held), spread), VERSION))
        return found

    def count(self, *_: Any, **__: Any) -> int:
        """How many points it holds."""
        return len(self._points)

    def earliest(self, version: int = 0) -> Any:
        """(RawPoint, version) of the first point."""
        return self.values(0, 1 << 62)[0]

    def latest(self, version: int = 0) -> Any:
        """(RawPoint, version) of the last point."""
        return self.values(0, 1 << 62)[-1]

    def version(self) -> int:
        """Its version."""
        return VERSION

    def exists(self) -> bool:
        """Always."""
        return True

    def tags(self, refresh: bool = False) -> Any:
        """(tags, version)."""
        return {"name": self.name, "unit": self.unit}, VERSION

    def annotations(self, refresh: bool = False) -> Any:
        """(annotations, version)."""
        return {"phase": self._described["Phase"]}, VERSION

    def insert(self, *_: Any, **__: Any) -> None:
        """Refuses: nothing is written at the desk."""
        raise PermissionError(
            "the stand-in for BTrDB cannot be written; try_handler(..., btrdb=conn) reaches the real one"
        )
