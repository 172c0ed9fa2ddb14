"""Mends how kafka-python 3.0 joins a group: what a join brings between two polls is taken up by the next one.

The client begins a join in one poll() and leaves it under way when the poll's time is over. The next poll() awaits it; but one
that has ended meanwhile is thrown away there, and another begun (BaseCoordinator.join_group_async). A member that polls without
waiting (an executor without a free slot) then joins for ever: it holds up every other member, commits nothing ("Offset commit
cannot be completed since the consumer is undergoing a rebalance") and an executor beside it gets no partition. Short polls
meet it now and then, the more often the busier the machine.
A leader that joins again because partitions have been added, or a topic made, forgets that it does so once it has dealt them out:
when the join ends after that poll, nobody takes it up, no heartbeat is sent any more, and it has no partitions for ever, without a
word. So what has begun is remembered until it ends.
Whether a newer client still needs this: take the call out and run tests/stream/test_contract.py and test_rebalance.py.
"""

from __future__ import annotations

from typing import Any

from kafka.structs import MemberState


def keep_joins(client: Any) -> None:
    """Makes this consumer take up its own joins; called once, before it is polled first."""
    coordinator = client._coordinator
    join = coordinator.join_group_async

    async def join_group_async(timeout_ms: float | None = None) -> Any:
        await _take_up(coordinator)
        with coordinator._lock:
            coordinator.rejoin_needed = coordinator.need_rejoin()
        return await join(timeout_ms=timeout_ms)

    coordinator.join_group_async = join_group_async


async def _take_up(coordinator: Any) -> None:
    """As the client does with a join that ends while it is awaited; one that failed is its own to begin anew.

    Not what has been overtaken: who was thrown out of the group meanwhile is no longer rebalancing.
    """
    task = coordinator._join_task
    if task is None or not task.succeeded() or coordinator.state is not MemberState.REBALANCING:
        return
    coordinator._join_task = None
    with coordinator._lock:
        coordinator.rejoining = False
        coordinator.rejoin_needed = False
        coordinator.state = MemberState.STABLE
        coordinator._enable_heartbeat()
    joined = coordinator._generation
    await coordinator._on_join_complete_async(joined.generation_id, joined.member_id, joined.protocol, task.value)
