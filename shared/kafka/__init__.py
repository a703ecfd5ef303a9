"""How do the services reach Kafka?

The only modules that import aiokafka. A publisher that sends rows pipelined and never trusts an uncertain producer, a
group consumer with every limit set explicitly, and the few questions operators ask of topics.
"""

from shared.kafka.connection import is_kafka_error
from shared.kafka.consumers import GroupConsumer, GroupLimits, TopicReader
from shared.kafka.groups import GroupState, commit_offsets, describe_group
from shared.kafka.offsets import (
    Span,
    Spans,
    find_offsets,
    list_committed_offsets,
    measure_topics,
    read_spans,
)
from shared.kafka.publisher import Outgoing, Published, Publisher, partition_of
from shared.kafka.topics import TopicSpec, create_topics, list_topic_configs, list_topics

__all__ = [
    "GroupConsumer",
    "GroupLimits",
    "GroupState",
    "Outgoing",
    "Published",
    "Publisher",
    "Span",
    "Spans",
    "TopicReader",
    "TopicSpec",
    "commit_offsets",
    "create_topics",
    "describe_group",
    "find_offsets",
    "is_kafka_error",
    "list_committed_offsets",
    "list_topic_configs",
    "list_topics",
    "measure_topics",
    "partition_of",
    "read_spans",
]
