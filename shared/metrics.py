"""What can be measured from outside?

Prometheus metrics of one process, served at /metrics. Labels are bounded: types, consumers, outcomes, route templates.
"""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500)

MESSAGES = Counter(
    "holdfast_messages_total",
    "Messages by what became of them: handled, duplicate, refused, passed (of no interest) or unknown (type).",
    ["consumer", "outcome"],
)
BATCH_SIZE = Histogram("holdfast_batch_size", "Items in one transaction.", ["edge"], buckets=_SIZES)
BATCH_SECONDS = Histogram(
    "holdfast_batch_seconds", "Duration of one transaction.", ["edge"], buckets=_SECONDS
)
RETRIES = Counter("holdfast_retries_total", "Batches done again after a transient error.", ["edge"])
DEAD_LETTERS = Counter(
    "holdfast_dead_letters_total", "Messages sent to the dead letters.", ["consumer", "reason"]
)
OUTBOX_SENT = Counter("holdfast_outbox_sent_total", "Outbox rows acknowledged by Kafka.")
OUTBOX_UNSENDABLE = Counter(
    "holdfast_outbox_unsendable_total", "Outbox rows that Kafka refuses; they are kept."
)
OUTBOX_WAITING = Gauge("holdfast_outbox_waiting", "Outbox rows in the batch being sent.")
OUTBOX_OLDEST_SECONDS = Gauge(
    "holdfast_outbox_oldest_seconds", "Age of the oldest row of this database's outbox; 0 if it is empty."
)
RELAY_LEADER = Gauge("holdfast_relay_leader", "1 while this process is the one that empties the outbox.")
CONSUMER_LAG = Gauge(
    "holdfast_consumer_lag",
    "Messages in the partitions of this process that it has not read yet.",
    ["consumer"],
)
PART_AWAY = Gauge(
    "holdfast_part_away",
    "1 for a part that does not work at present: what makes /readyz say degraded.",
    ["part"],
)
PART_HALTED_SECONDS = Gauge(
    "holdfast_part_halted_seconds",
    "For how long a part has owed work and done none; beyond HOLDFAST_WATCHDOG_SECONDS /livez answers 503.",
    ["part"],
)
QUEUE = Gauge("holdfast_queue", "Requests waiting for a batch.", ["edge"])
WORKER_ERRORS = Counter("holdfast_worker_errors_total", "Ticks of a worker that failed.", ["worker"])
REQUEST_SECONDS = Histogram(
    "holdfast_http_request_seconds",
    "Duration of HTTP requests.",
    ["method", "route", "status"],
    buckets=_SECONDS,
)
