"""Is a delivery signed as Standard Webhooks asks, by one of several secrets, and not older than five minutes?"""

from collections.abc import Mapping, Sequence

import standardwebhooks

from shared.errors import Malformed

EVENT_ID_CHARACTERS_MAX = 255
SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class StandardWebhooks:
    """Verifies signatures; several secrets are accepted while one is being replaced by another."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._verifiers = [standardwebhooks.Webhook(secret) for secret in secrets]

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:
        """Return the event id of a delivery, or raise `Malformed`; the tolerance of the time-stamp is ±300 s."""
        event_id = headers.get("webhook-id", "")
        if not (
            0 < len(event_id) <= EVENT_ID_CHARACTERS_MAX and event_id.isascii() and event_id.isprintable()
        ):
            raise Malformed("The header webhook-id is missing or unusable.")
        signature = {name: headers.get(name, "") for name in SIGNATURE_HEADERS}
        for verifier in self._verifiers:
            try:
                verifier.verify(body, signature, json_parse=False)
            except Exception:  # noqa: S112 (hostile input makes the verifier raise whatever its parts raise)
                continue
            return event_id
        raise Malformed("The signature or the time-stamp of this delivery is not valid.")
