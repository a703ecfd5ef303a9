"""What does the inventory decide?

The rules are in docs/protocol.md, "Reservation"; its table is `Ledger._advance`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, assert_never
from uuid import UUID

from services.inventory_service.domain.reservation import Reservation
from services.inventory_service.domain.stock import Adjustment, Kind, Level, Movement, Receipt, add_up
from shared.envelope import Emitted
from shared.errors import Conflict
from shared.events import (
    Line,
    OrderFact,
    OrderRequested,
    PaymentFact,
    PaymentStatus,
    ReleaseReason,
    ReservationStatus,
    ReturnReason,
    Shortage,
    SkuFact,
    StockConfirmed,
    StockDepleted,
    StockFact,
    StockRejected,
    StockReleased,
    StockReplenished,
    StockReserved,
    StockReturned,
    StockUnavailable,
    UnavailableReason,
)

Change: TypeAlias = Receipt | Adjustment


class Ledger:
    """The reservations and levels that a batch touches, what becomes of them, and what is to be told of it.

    `at` is the time of the batch. `movements` and `events` are in the order in which they were decided.
    """

    def __init__(
        self,
        at: datetime,
        *,
        reservations: Iterable[Reservation] = (),
        levels: Iterable[Level] = (),
        changes: Iterable[Change] = (),
    ) -> None:
        self.at = at
        self.reservations = {reservation.order_id: reservation for reservation in reservations}
        self.levels = {level.sku: level for level in levels}
        self.movements: list[Movement] = []
        self.new_changes: list[Change] = []
        self.events: list[Emitted] = []
        self._changes = {_key(change): change for change in changes}

    def open(self, event: OrderRequested, cause: str, hold_seconds: int) -> None:
        """Reserve all lines of an order or none, then decide what was heard of it before.

        Args:
            event: the order; from one that was opened before only its carried state is taken.
            cause: what the events that follow name as their cause.
            hold_seconds: how long to hold the units if the order does not say.
        """
        reservation = self._reservation(event.order_id)
        if reservation.opened:
            self.join_order(event, cause)
            return
        reservation.cancelled |= event.cancelled
        reservation.lines = add_up(event.lines)
        if reservation.cancelled:
            self._bury(reservation, cause)
        elif shortages := self._shortages(reservation.lines):
            self._reject(reservation, shortages, cause)
        else:
            self._reserve(reservation, timedelta(seconds=event.hold_seconds or hold_seconds), cause)
        self._advance(reservation, cause)

    def join_order(self, event: OrderFact, cause: str) -> None:
        """Take from any event of the order service what it carries: whether the order is cancelled."""
        reservation = self._reservation(event.order_id)
        if reservation.cancelled or not event.cancelled:
            return
        reservation.cancelled = reservation.changed = True
        if reservation.opened:
            self._advance(reservation, cause)
        else:
            reservation.stand(ReservationStatus.RELEASED, "cancelled")

    def join_payment(self, event: PaymentFact, cause: str) -> None:
        """Take from any event of the payment service what it carries, if it stands further than what is known."""
        reservation = self._reservation(event.order_id)
        if not reservation.is_news(event.payment_status):
            return
        reservation.payment_status, reservation.payment_reason = event.payment_status, event.payment_reason
        reservation.changed = True
        if reservation.opened:
            self._advance(reservation, cause)

    def expire(self, order_id: UUID, expired_by: datetime, cause: str) -> None:
        """Release what is still held for an order, if its hold ended at `expired_by` or before."""
        reservation = self._reservation(order_id)
        if reservation.status is not ReservationStatus.HELD or reservation.expires_at is None:
            return
        if reservation.expires_at <= expired_by:
            reservation.expired_by = expired_by
            self._release(reservation, "expired", cause)

    def change(self, change: Change) -> bool | Conflict:
        """Apply a receipt or an adjustment.

        Returns:
            True if it is new, False if it was applied before, or why it cannot be applied.
        """
        known = self._changes.get(_key(change))
        if known is not None:
            return False if known == change else Conflict("this id was used before, with another content")
        match change:
            case Receipt(lines=lines):
                for sku, quantity in lines.items():
                    self._move(Movement.of(Kind.RECEIVED, sku, quantity, change.cause))
            case Adjustment(sku=sku, quantity_delta=quantity_delta):
                if (available := self._level(sku).available) + quantity_delta < 0:
                    return Conflict(f"{sku} has only {available} units available")
                self._move(Movement.of(Kind.ADJUSTED, sku, quantity_delta, change.cause))
        self._changes[_key(change)] = change
        self.new_changes.append(change)
        return True

    def recount(self, sku: str, sums: tuple[int, int, int], cause: str) -> bool:
        """Make the counters of a SKU (available, reserved, sold) what its movements add up to; False if they are."""
        level = self._level(sku)
        return level.stored and self._correct(level, sums, cause)

    def tell_again(self, order_id: UUID, lost: Sequence[int], cause: str) -> None:
        """Tell once more where a reservation stands, as its readers join what an event carries by rank.

        Args:
            order_id: the order; of a reservation that was never opened nothing was told.
            lost: numbers of events that no topic holds any more, to be told under; without any, a new one is given out.
            cause: what the events name as their cause.
        """
        reservation = self.reservations.get(order_id)
        if reservation is None or not reservation.opened:
            return
        for number in lost:
            # The first one also tells until when the units were held.
            is_hold = number == 1 and reservation.expires_at is not None
            standing = ReservationStatus.HELD if is_hold else reservation.status
            self._tell_numbered(reservation, number, *_standing(reservation, standing), cause)
        if not lost:
            reservation.changed = True
            fact, details = _standing(reservation, reservation.status)
            self._tell(reservation, cause, fact, **details)

    def tell_sku_again(self, sku: str, lost: Sequence[int], cause: str) -> None:
        """Tell once more whether a SKU has run out, under the numbers of events that no topic holds any more."""
        level = self._level(sku)
        fact = StockReplenished if level.available else StockDepleted
        self.events += [Emitted(fact(sku=sku), sku, number, cause, correlation_id=None) for number in lost]

    def _advance(self, reservation: Reservation, cause: str) -> None:
        """Do what the protocol says for where a reservation stands and all that is known of its order."""
        payment = reservation.payment_status
        match reservation.status:
            case ReservationStatus.HELD if reservation.cancelled:
                self._release(reservation, "cancelled", cause)
            case ReservationStatus.HELD if payment is PaymentStatus.SUCCEEDED:
                self._confirm(reservation, cause, late=False)
            case ReservationStatus.HELD if payment is PaymentStatus.REFUNDED:
                self._release(reservation, "refunded", cause)
            case ReservationStatus.HELD if payment in (PaymentStatus.FAILED, PaymentStatus.CANCELLED):
                expired = reservation.payment_reason == "expired"
                self._release(reservation, "expired" if expired else "payment_failed", cause)
            case ReservationStatus.CONFIRMED if reservation.cancelled:
                self._give_back(reservation, "cancelled", cause)
            case ReservationStatus.CONFIRMED if payment is PaymentStatus.REFUNDED:
                self._give_back(reservation, "refunded", cause)
            case ReservationStatus.REJECTED | ReservationStatus.RELEASED if (
                payment is PaymentStatus.SUCCEEDED and not reservation.unavailable
            ):
                self._confirm_late(reservation, cause)

    def _reserve(self, reservation: Reservation, hold: timedelta, cause: str) -> None:
        reservation.round = 1
        reservation.expires_at = self.at + hold
        reservation.stand(ReservationStatus.HELD)
        self._move_all(Kind.RESERVED, reservation, cause)
        lines = _wire(reservation.lines)
        self._tell(reservation, cause, StockReserved, lines=lines, expires_at=reservation.expires_at)

    def _reject(self, reservation: Reservation, shortages: tuple[Shortage, ...], cause: str) -> None:
        reservation.stand(ReservationStatus.REJECTED, "insufficient_stock")
        self._tell(reservation, cause, StockRejected, shortages=shortages)

    def _bury(self, reservation: Reservation, cause: str) -> None:
        """Open an order that is cancelled already: nothing is reserved, so no units are given back."""
        reservation.stand(ReservationStatus.RELEASED, "cancelled")
        self._tell(reservation, cause, StockReleased, lines=(), reason="cancelled")

    def _confirm(self, reservation: Reservation, cause: str, *, late: bool) -> None:
        reservation.stand(ReservationStatus.CONFIRMED)
        self._move_all(Kind.CONFIRMED, reservation, cause)
        self._tell(reservation, cause, StockConfirmed, lines=_wire(reservation.lines), late=late)

    def _release(self, reservation: Reservation, reason: ReleaseReason, cause: str) -> None:
        reservation.stand(ReservationStatus.RELEASED, reason)
        self._move_all(Kind.RELEASED, reservation, cause)
        self._tell(reservation, cause, StockReleased, lines=_wire(reservation.lines), reason=reason)

    def _give_back(self, reservation: Reservation, reason: ReturnReason, cause: str) -> None:
        reservation.stand(ReservationStatus.RETURNED, reason)
        self._move_all(Kind.RETURNED, reservation, cause)
        self._tell(reservation, cause, StockReturned, lines=_wire(reservation.lines), reason=reason)

    def _confirm_late(self, reservation: Reservation, cause: str) -> None:
        """Hold the units of a paid order once more, all or none; what is given up once is given up for ever."""
        if reservation.status is ReservationStatus.REJECTED:
            self._give_up(reservation, "rejected", cause)
        elif reservation.cancelled:
            self._give_up(reservation, "cancelled", cause)
        elif self._shortages(reservation.lines):
            self._give_up(reservation, "sold_since", cause)
        else:
            reservation.round += 1
            self._move_all(Kind.RESERVED, reservation, cause)
            self._confirm(reservation, cause, late=True)

    def _give_up(self, reservation: Reservation, reason: UnavailableReason, cause: str) -> None:
        reservation.unavailable = True
        self._tell(reservation, cause, StockUnavailable, reason=reason)

    def _shortages(self, lines: Mapping[str, int]) -> tuple[Shortage, ...]:
        """Return the SKUs of which fewer units are available than asked for; of an unknown one there is none."""
        return tuple(
            Shortage(sku=sku, requested=quantity, available=available)
            for sku, quantity in lines.items()
            if (available := self._level(sku).available) < quantity
        )

    def _move_all(self, kind: Kind, reservation: Reservation, cause: str) -> None:
        for sku, quantity in reservation.lines.items():
            movement = Movement.of(
                kind, sku, quantity, cause, order_id=reservation.order_id, in_round=reservation.round
            )
            self._move(movement)

    def _move(self, movement: Movement) -> None:
        """Count a movement, and tell if the SKU has run out or is there again; a first arrival is neither."""
        level = self._level(movement.sku)
        known, before = level.stored or level.changed, level.available
        level.add(movement)
        self.movements.append(movement)
        if before > 0 == level.available:
            self._tell_of(level, movement.cause, StockDepleted)
        elif before == 0 < level.available and known:
            self._tell_of(level, movement.cause, StockReplenished)

    def _correct(self, level: Level, sums: tuple[int, int, int], cause: str) -> bool:
        before = level.available
        if (level.available, level.reserved, level.sold) == sums:
            return False
        level.set_to(*sums)
        if before > 0 == level.available:
            self._tell_of(level, cause, StockDepleted)
        elif before <= 0 < level.available:
            self._tell_of(level, cause, StockReplenished)
        return True

    def _tell(self, reservation: Reservation, cause: str, fact: type[StockFact], **details: Any) -> None:
        reservation.sequence += 1
        self._tell_numbered(reservation, reservation.sequence, fact, details, cause)

    def _tell_numbered(
        self,
        reservation: Reservation,
        number: int,
        fact: type[StockFact],
        details: Mapping[str, Any],
        cause: str,
    ) -> None:
        key = str(reservation.order_id)
        event = fact(**reservation.carried(), **details)
        self.events.append(Emitted(event, key, number, cause, correlation_id=key))

    def _tell_of(self, level: Level, cause: str, fact: type[SkuFact]) -> None:
        level.sequence += 1
        self.events.append(
            Emitted(fact(sku=level.sku), level.sku, level.sequence, cause, correlation_id=None)
        )

    def _reservation(self, order_id: UUID) -> Reservation:
        reservation = self.reservations.get(order_id)
        if reservation is None:
            reservation = self.reservations[order_id] = Reservation(order_id)
        return reservation

    def _level(self, sku: str) -> Level:
        level = self.levels.get(sku)
        if level is None:
            level = self.levels[sku] = Level(sku)
        return level


def _key(change: Change) -> tuple[Literal["receipt", "adjustment"], str]:
    match change:
        case Receipt():
            return "receipt", change.receipt_id
        case Adjustment():
            return "adjustment", change.adjustment_id


def _standing(
    reservation: Reservation, status: ReservationStatus | None
) -> tuple[type[StockFact], dict[str, Any]]:
    """Return which event says that a reservation stands there, and what it tells beside the carried state."""
    # What was cancelled before anything was reserved gave nothing back.
    lines = _wire(reservation.lines) if reservation.round else ()
    if reservation.unavailable and status is reservation.status:
        unavailable: UnavailableReason = "cancelled" if reservation.cancelled else "sold_since"
        rejected = reservation.status is ReservationStatus.REJECTED
        return StockUnavailable, {"reason": "rejected" if rejected else unavailable}
    match status:
        case ReservationStatus.HELD:
            return StockReserved, {"lines": lines, "expires_at": reservation.expires_at}
        case ReservationStatus.CONFIRMED:
            return StockConfirmed, {"lines": lines, "late": reservation.round > 1}
        case ReservationStatus.RELEASED:
            return StockReleased, {"lines": lines, "reason": reservation.reason}
        case ReservationStatus.RETURNED:
            return StockReturned, {"lines": lines, "reason": reservation.reason}
        case ReservationStatus.REJECTED | None:
            # What was short then is not kept.
            return StockRejected, {"shortages": ()}
        case unreachable:
            assert_never(unreachable)


def _wire(lines: Mapping[str, int]) -> tuple[Line, ...]:
    return tuple(Line(sku=sku, quantity=quantity) for sku, quantity in lines.items())
