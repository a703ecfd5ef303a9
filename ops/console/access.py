"""Who is let in, how is somebody known again, and what keeps others from acting in their name?

The operators' token and operators' API keys open a session: a cookie that says who and until when, signed with a key
that is made of the token, so that a new token ends all sessions. A session that an API key has opened is over when the
key is. Each form that changes something carries a second signature over the session, which no other site can know.
"""

import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

import orjson
from pydantic import SecretStr

from shared.access import Access, Scope
from shared.errors import Forbidden, Unauthorized

COOKIE = "holdfast_console"
NAME_CHARACTERS_MAX = 80
_COOKIE_CHARACTERS_MAX = 2_000
_NOBODY = "an operator"


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody who may come in: the name that an API key proves (None: it is for them to say), and until when it does."""

    name: str | None = None
    still: Callable[[], bool] | None = None


async def admit(access: Access, token: str) -> Admitted | None:
    """Return who may come in with a token; None if it opens nothing, or less than the console."""
    try:
        caller = await access.identify(f"Bearer {token.strip()}")
    except (Unauthorized, Forbidden):
        return None
    if caller.scope is not Scope.OPERATOR:
        return None
    keys = access.api_keys
    if caller.is_anonymous or keys is None:
        return Admitted()
    return Admitted(caller.name, lambda: keys.find(token.strip()) == caller)


@dataclass(frozen=True, slots=True)
class Session:
    """A login: who is there, and until when, in seconds since 1970.

    `is_proven` says that the name is that of an API key; any other name is only what somebody has said.
    """

    id: str
    name: str
    expires_at: float
    is_proven: bool = False


_ANYBODY = Admitted()


class Sessions:
    """Begins, recognises and ends sessions."""

    def __init__(self, token: SecretStr, *, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(token.get_secret_value().encode(), b"holdfast console session", "sha256")
        self._seconds = seconds
        self._clock = clock
        self._ended: dict[str, float] = {}
        self._still: dict[str, tuple[float, Callable[[], bool]]] = {}

    def begin(self, name: str, admitted: Admitted = _ANYBODY) -> tuple[Session, str]:
        """Return a new session and its cookie; a name that is proven counts instead of the one that was said."""
        said = admitted.name or name
        shown = "".join(character for character in said if character.isprintable()).strip()
        expires_at = self._clock() + self._seconds
        session = Session(
            secrets.token_urlsafe(16),
            shown[:NAME_CHARACTERS_MAX] or _NOBODY,
            expires_at,
            is_proven=admitted.name is not None,
        )
        if admitted.still is not None:
            self._forget_what_is_over()
            self._still[session.id] = (expires_at, admitted.still)
        body = urlsafe_b64encode(orjson.dumps(asdict(session))).decode()
        return session, f"{body}.{self._sign('cookie', body)}"

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None if we did not make it, it is over, or it was ended."""
        body, _, signature = cookie.partition(".")
        if len(cookie) > _COOKIE_CHARACTERS_MAX or not _is_same(signature, self._sign("cookie", body)):
            return None
        session = Session(**orjson.loads(urlsafe_b64decode(body)))
        is_over = session.expires_at <= self._clock() or session.id in self._ended
        return None if is_over or not self._holds(session) else session

    def end(self, session: Session) -> None:
        """Refuse a session from now on, whoever has kept its cookie."""
        self._forget_what_is_over()
        self._still.pop(session.id, None)
        self._ended[session.id] = session.expires_at

    def form_key(self, session: Session) -> str:
        """Return what each form of a session carries."""
        return self._sign("form", session.id)

    def is_form_key(self, session: Session, given: str) -> bool:
        """Tell whether a form is one that we gave to this session."""
        return _is_same(given, self.form_key(session))

    def seconds_left(self, session: Session) -> float:
        """Return how long a session still lasts."""
        return max(0.0, session.expires_at - self._clock())

    def _holds(self, session: Session) -> bool:
        """Tell whether the API key of a session still opens it; after a restart nobody knows that any more."""
        if not session.is_proven:
            return True
        _, still = self._still.get(session.id, (0.0, None))
        return still is not None and still()

    def _forget_what_is_over(self) -> None:
        now = self._clock()
        self._ended = {name: until for name, until in self._ended.items() if until > now}
        self._still = {name: item for name, item in self._still.items() if item[0] > now}

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self._key, f"{purpose}:{text}".encode(errors="replace"), "sha256").hex()


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


class Attempts:
    """Counts attempts to log in by address, so that nobody may guess for long; a success is forgotten."""

    def __init__(
        self,
        *,
        attempts_max: int = 10,
        seconds: float = 60.0,
        addresses_max: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attempts_max = attempts_max
        self._seconds = seconds
        self._addresses_max = addresses_max
        self._clock = clock
        self._tried: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Count one more attempt, and return whether it may be made; counted first, so that many at once count, too."""
        now = self._clock()
        times = self._tried.setdefault(address, deque(maxlen=self._attempts_max + 1))
        self._tried.move_to_end(address)
        while len(self._tried) > self._addresses_max:
            self._tried.popitem(last=False)
        while times and times[0] <= now - self._seconds:
            times.popleft()
        if len(times) >= self._attempts_max:
            return False
        times.append(now)
        return True

    def forget(self, address: str) -> None:
        """Forget the attempts of somebody who was let in."""
        self._tried.pop(address, None)
