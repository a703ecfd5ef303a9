"""Does a group read just now, and where is it to go on?"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)

from shared.errors import Conflict, Unavailable
from shared.kafka.connection import connection
from shared.kafka.topics import administrator
from shared.settings import KafkaSettings

#: Kafka tells so of a group that has no members, or that nobody has ever heard of.
_INACTIVE = frozenset({"Empty", "Dead"})
_IN_USE = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)
_RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class GroupState:
    """What Kafka says of a group: its state, and which clients are its members, from where."""

    state: str
    members: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether it has members, or is about to have some."""
        return self.state not in _INACTIVE


async def describe_group(settings: KafkaSettings, group: str) -> GroupState:
    """Return whether a group has members.

    Raises:
        Unavailable: Kafka does not answer.
    """
    async with administrator(settings) as admin, asyncio.timeout(settings.request_timeout_seconds):
        described = None
        while described is None:
            try:
                described = await _describe(admin, group)
            except KafkaError as error:
                # A new cluster makes the topic of the groups only when it is first asked for one.
                if not error.retriable:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)
    return described


async def _describe(admin: Any, group: str) -> GroupState:
    ((found,),) = [response.groups for response in await admin.describe_consumer_groups([group])]
    error_code, _, state, _, _, members, *_ = found
    if error_code:
        raise for_code(error_code)
    return GroupState(state, tuple(sorted(f"{client} at {host}" for _, client, host, *_ in members)))


async def commit_offsets(settings: KafkaSettings, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
    """Have a group without members go on at other offsets.

    Raises:
        Conflict: the group has members by now; nothing is changed.
        Unavailable: Kafka does not answer.
    """
    wanted = {
        TopicPartition(topic, partition): offset
        for (topic, partition), offset in offsets.items()
        if offset >= 0
    }
    consumer = AIOKafkaConsumer(
        **connection(settings, "holdfast-offsets"), group_id=group, enable_auto_commit=False
    )
    try:
        await consumer.start()
        # Assigned by hand it is no member: Kafka takes its offsets only while there are none.
        consumer.assign(list(wanted))
        await consumer.commit(wanted)
    except _IN_USE as error:
        detail = f"The group {group} has members again: {error!r}"
        raise Conflict(detail) from error
    except (KafkaError, OSError) as error:
        detail = f"Kafka does not answer: {error!r}"
        raise Unavailable(detail) from error
    finally:
        await consumer.stop()
