"""Who is calling, and what may it do?

Two tokens of the settings, API keys from a file, and tokens of an OpenID issuer lead to one thing: a `Caller` with a
name, a scope and, if it is a customer, its id. What a scope opens is said where each route is listed (`shared/web.py`).
"""

from shared.access.api_keys import ApiKeys, KeyLine, NewKey, new_key, read_keys, read_keys_file
from shared.access.callers import Caller, Scope
from shared.access.gate import Access, access_of
from shared.access.issuer import Issuer, IssuerOptions
from shared.access.issuer_keys import IssuerKeys, fetch_keys

__all__ = [
    "Access",
    "ApiKeys",
    "Caller",
    "Issuer",
    "IssuerKeys",
    "IssuerOptions",
    "KeyLine",
    "NewKey",
    "Scope",
    "access_of",
    "fetch_keys",
    "new_key",
    "read_keys",
    "read_keys_file",
]
