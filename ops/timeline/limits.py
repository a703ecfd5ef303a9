"""How much of the system may a timeline read?"""

from dataclasses import dataclass

from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class TimelineLimits:
    """What is read at most, and for how long; what is cut off is told.

    Attributes:
        records_max: messages of each topic that are looked at, in the order's partition, from when it began.
        kafka_seconds_max: longest time for reading topics.
        statement_seconds_max: longest time for one question to a database.
        rows_max: rows of each kind (deliveries, messages that wait, …) that are told.
        body_characters_max: length of what is told of a delivery's body.
    """

    records_max: int = 100_000
    kafka_seconds_max: float = 20.0
    statement_seconds_max: float = 30.0
    rows_max: int = 1_000
    body_characters_max: int = 240

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through.

        Raises:
            Misconfigured: one of them is not positive.
        """
        limits = (self.records_max, self.kafka_seconds_max, self.statement_seconds_max, self.rows_max)
        if min(*limits, self.body_characters_max) <= 0:
            detail = "timeline: every limit must be positive"
            raise Misconfigured(detail)
