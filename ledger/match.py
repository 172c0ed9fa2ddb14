"""Which handlers an event meets: an index by tag, so that the time does not grow with handlers that do not match."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from ledger.handlers import Matchable
from schemas.events import Event


@dataclass(frozen=True)
class Matched:
    """A handler that an event meets, and why: the tags that both have, sorted; none when the handler has no tags."""

    handler: Matchable
    shared_tags: tuple[str, ...]

    @property
    def why(self) -> str:
        """The reason in words, for people."""
        return f"shares {', '.join(self.shared_tags)}" if self.shared_tags else "has no tags, so it takes every event"


@dataclass
class _Hook:
    untagged: list[Matchable] = field(default_factory=list)
    by_tag: dict[str, list[Matchable]] = field(default_factory=lambda: defaultdict(list))


class TagIndex:
    """The live handlers at one revision of the registry, found by hook and tag. Immutable once built."""

    def __init__(self, handlers: Iterable[Matchable], revision: int) -> None:
        """handlers: alive and not paused, of all hooks; revision: the ledger's, read in the same transaction."""
        self.revision = revision
        self._hooks: dict[str, _Hook] = defaultdict(_Hook)
        for handler in handlers:
            hook = self._hooks[handler.hook]
            if handler.tags:
                for tag in handler.tags:
                    hook.by_tag[tag].append(handler)
            else:
                hook.untagged.append(handler)

    def match(self, event: Event) -> tuple[Matched, ...]:
        """What handlers() finds, each with the reason."""
        tags = set(event.tags)
        return tuple(Matched(handler, tuple(sorted(tags & handler.tags))) for handler in self.handlers(event))

    def handlers(self, event: Event) -> list[Matchable]:
        """The handlers of the event's hook with at least one tag in common, and those without tags; by handler id.

        An event without tags meets only the handlers without tags. Costs as much as there are matches, whatever is registered.
        """
        hook = self._hooks.get(event.hook)
        if hook is None:
            return []
        met: dict[int, Matchable] = {handler.handler_id: handler for handler in hook.untagged}
        for tag in event.tags:
            met.update((handler.handler_id, handler) for handler in hook.by_tag.get(tag, ()))
        return [met[handler_id] for handler_id in sorted(met)]
