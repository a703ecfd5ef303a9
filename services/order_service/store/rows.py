"""How does a statement say what it did?"""


def count(status: str) -> int:
    """Return the row count of a command status such as `UPDATE 12`."""
    return int(status.rpartition(" ")[2])
