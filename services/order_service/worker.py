"""Who forgets what nobody asks for any more: old answers under a key, and carts that were left behind?"""

from services.order_service import store
from shared.database import Database


class Housekeeper:
    """Deletes what is old, so many rows a tick."""

    def __init__(
        self, database: Database, *, answer_hours: int, cart_hours: int, rows_max: int = 1_000
    ) -> None:
        self._database = database
        self._answer_hours = answer_hours
        self._cart_hours = cart_hours
        self._rows_max = rows_max

    async def tick(self) -> bool:
        """Delete some of each; tell whether there may be more."""
        async with self._database.connection() as connection:
            answers = await store.delete_old_answers(
                connection, hours=self._answer_hours, answers_max=self._rows_max
            )
            carts = await store.delete_abandoned_carts(
                connection, hours=self._cart_hours, carts_max=self._rows_max
            )
        return self._rows_max in {answers, carts}
