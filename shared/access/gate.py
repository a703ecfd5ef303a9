"""Which caller does a request come from?"""

import hmac

from pydantic import SecretStr

from shared.access.api_keys import KEY_PREFIX, ApiKeys
from shared.access.callers import Caller, Scope
from shared.access.issuer import Issuer, IssuerOptions
from shared.access.issuer_keys import IssuerKeys
from shared.errors import Unauthorized
from shared.health import Health
from shared.settings import AccessSettings

_STOREFRONT = Caller(Scope.STOREFRONT, Scope.STOREFRONT)
_OPERATOR = Caller(Scope.OPERATOR, Scope.OPERATOR)


class Access:
    """Everybody who may come in: the holders of the two tokens, of API keys, and of an issuer's tokens."""

    def __init__(
        self,
        *,
        storefront: SecretStr,
        operator: SecretStr,
        api_keys: ApiKeys | None = None,
        issuer: Issuer | None = None,
        authorization_characters_max: int = 4_096,
    ) -> None:
        self.api_keys = api_keys
        self.issuer = issuer
        self._storefront = storefront.get_secret_value().encode()
        self._operator = operator.get_secret_value().encode()
        self._authorization_characters_max = authorization_characters_max

    async def identify(self, authorization: str) -> Caller:
        """Return who sends this header.

        Raises:
            Unauthorized: nobody we know.
            Forbidden: the issuer knows the caller, and has given it nothing that opens anything here.
            Unavailable: who it is depends on a key of the issuer, which does not answer.
        """
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() != "bearer" or len(authorization) > self._authorization_characters_max:
            raise Unauthorized
        token = rest.strip()
        given = token.encode(errors="replace")
        is_operator = hmac.compare_digest(given, self._operator)
        is_storefront = hmac.compare_digest(given, self._storefront)
        if is_operator:
            return _OPERATOR
        if is_storefront:
            return _STOREFRONT
        if not token.isascii():
            raise Unauthorized
        if token.startswith(KEY_PREFIX):
            caller = None if self.api_keys is None else self.api_keys.find(token)
            if caller is None:
                raise Unauthorized
            return caller
        if self.issuer is None:
            raise Unauthorized
        return await self.issuer.find(token)


def access_of(settings: AccessSettings, health: Health) -> Access:
    """Return what the settings say.

    Raises:
        Misconfigured: the file of API keys is wrong.
    """
    return Access(
        storefront=settings.storefront_token,
        operator=settings.operator_token,
        api_keys=None if settings.api_keys_file is None else ApiKeys(settings.api_keys_file, health=health),
        issuer=_issuer(settings, health),
        authorization_characters_max=settings.authorization_characters_max,
    )


def _issuer(settings: AccessSettings, health: Health) -> Issuer | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None or settings.oidc_jwks_url is None:
        return None
    keys = IssuerKeys(
        str(settings.oidc_jwks_url),
        timeout_seconds=settings.oidc_timeout_seconds,
        refetch_seconds_min=settings.oidc_refetch_seconds_min,
        health=health,
    )
    options = IssuerOptions(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        algorithms=settings.oidc_algorithms,
        scopes=settings.oidc_scopes,
        scope_claim=settings.oidc_scope_claim,
        customer_claim=settings.oidc_customer_claim,
        leeway_seconds=settings.oidc_leeway_seconds,
        verified_seconds_max=settings.oidc_verified_seconds_max,
        verified_tokens_max=settings.oidc_verified_tokens_max,
    )
    return Issuer(options, keys)
