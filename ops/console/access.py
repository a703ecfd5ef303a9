"""Who is let in, how is somebody known again, and what keeps others from acting in their name?

The operators' token opens a session: a cookie that says who and until when, signed with a key that is made of the
token, so that a new token ends all sessions. Each form that changes something carries a second signature over the
session, which no other site can know.
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

COOKIE = "holdfast_console"
NAME_CHARACTERS_MAX = 80
_COOKIE_CHARACTERS_MAX = 2_000
_NOBODY = "an operator"


@dataclass(frozen=True, slots=True)
class Session:
    """A login: who says to be there (nobody proves a name), and until when, in seconds since 1970."""

    id: str
    name: str
    expires_at: float


class Sessions:
    """Begins, recognises and ends sessions."""

    def __init__(self, token: SecretStr, *, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._token = token.get_secret_value().encode()
        self._key = hmac.digest(self._token, b"holdfast console session", "sha256")
        self._seconds = seconds
        self._clock = clock
        self._ended: dict[str, float] = {}

    def is_token(self, given: str) -> bool:
        """Tell whether this is the operators' token; it takes the same time whatever is given."""
        given_digest = hmac.digest(self._key, given.strip().encode(errors="replace"), "sha256")
        return hmac.compare_digest(given_digest, hmac.digest(self._key, self._token, "sha256"))

    def begin(self, name: str) -> tuple[Session, str]:
        """Return a new session and its cookie."""
        shown = "".join(character for character in name if character.isprintable()).strip()
        expires_at = self._clock() + self._seconds
        session = Session(secrets.token_urlsafe(16), shown[:NAME_CHARACTERS_MAX] or _NOBODY, expires_at)
        body = urlsafe_b64encode(orjson.dumps(asdict(session))).decode()
        return session, f"{body}.{self._sign('cookie', body)}"

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None if we did not make it, it is over, or it was ended."""
        body, _, signature = cookie.partition(".")
        if len(cookie) > _COOKIE_CHARACTERS_MAX or not _is_same(signature, self._sign("cookie", body)):
            return None
        session = Session(**orjson.loads(urlsafe_b64decode(body)))
        is_over = session.expires_at <= self._clock() or session.id in self._ended
        return None if is_over else session

    def end(self, session: Session) -> None:
        """Refuse a session from now on, whoever has kept its cookie."""
        now = self._clock()
        self._ended = {name: until for name, until in self._ended.items() if until > now}
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
