"""Where a log lies in PostgreSQL, and how to keep the password of that address out of every message.

libpq repeats parts of an address that it cannot read in its error messages, and a password with an unescaped @ or / in
it is such an address. So the address is read here first, strictly, and refused without being repeated. Needs no driver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from ledger.errors import UsageError

__all__ = ["DEFAULT_SCHEMA", "PostgresAddress"]

DEFAULT_SCHEMA: Final = "sealproof"

_FORM: Final = "postgresql://[user[:password]@][host[:port]][,...]/database[?schema=NAME&...]"
_WORD: Final = r"(?:[A-Za-z0-9._~!$'()*+;=-]|%[0-9A-Fa-f]{2})*"
_HOST: Final = r"(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2}|\[[0-9A-Fa-f:.%]+\])*(?::[0-9]{1,5})?"
_URL: Final = re.compile(
    rf"postgres(?:ql)?://(?:(?P<user>{_WORD})(?::(?P<password>{_WORD}))?@)?(?P<hosts>{_HOST}(?:,{_HOST})*)"
    rf"(?:/(?P<database>{_WORD}))?(?:\?(?P<query>[^?#\s]*))?",
    re.ASCII,
)
_OPTION: Final = re.compile(r"(?P<name>[a-z_]+)=(?P<value>(?:[A-Za-z0-9._~!$'()*+,;:/-]|%[0-9A-Fa-f]{2})*)", re.ASCII)
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_SECRET: Final = frozenset({"password", "sslpassword", "oauth_client_secret"})


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """A database and a schema in it. `str` and `repr` hide the password; `conninfo` has it and is for the driver."""

    conninfo: str = field(repr=False)
    schema: str
    shown: str
    """The address without its password, for messages."""
    secrets: tuple[str, ...] = field(repr=False, default=())
    """Spellings of the password, for `hide`."""

    @classmethod
    def parse(cls, text: str) -> PostgresAddress:
        """postgresql://user:password@host/database?schema=NAME; other options go to libpq, `schema` may be missing.

        Special characters in a user name or password are percent-encoded. Raises UsageError, which repeats nothing of
        `text`.
        """
        found = _URL.fullmatch(text)
        if found is None:
            raise UsageError(
                f"this is no address of a PostgreSQL database: expected {_FORM}, with special characters in the user "
                "name and the password percent-encoded (@ is %40, / is %2F)"
            )
        if "%00" in text or not _is_text(text):
            raise UsageError("the PostgreSQL address has an escape (%..) that stands for no character")
        schema, options = DEFAULT_SCHEMA, []
        for item in filter(None, (found["query"] or "").split("&")):
            option = _OPTION.fullmatch(item)
            if option is None:
                raise UsageError("an option of the PostgreSQL address is not of the form name=value")
            name, value = option["name"], option["value"]
            if name in _SECRET:
                raise UsageError(f"give the {name} before the @ of the PostgreSQL address, or in a file (passfile=...)")
            if name == "schema":
                schema = unquote(value)
            else:
                options.append(item)
        if _SCHEMA.fullmatch(schema) is None:
            raise UsageError("the schema in the PostgreSQL address is not of lower-case letters, digits and _")
        user, password = found["user"], found["password"]
        place = f"{found['hosts']}/{found['database'] or ''}"
        query = "?" + "&".join(options) if options else ""
        login = "" if user is None else f"{user}@" if password is None else f"{user}:{password}@"
        masked = login if not password else f"{user}:***@"
        secrets = tuple(sorted({password, unquote(password)}, key=len, reverse=True)) if password else ()
        shown = f"postgresql://{masked}{place}?{'&'.join([*options, f'schema={schema}'])}"
        return cls(f"postgresql://{login}{place}{query}", schema, shown, secrets)

    def hide(self, message: str) -> str:
        """A message of the driver or the server, without the password should it be in there."""
        for secret in self.secrets:
            message = message.replace(secret, "***")
        return message

    def __str__(self) -> str:
        return self.shown


def _is_text(escaped: str) -> bool:
    try:
        unquote(escaped, errors="strict")
    except UnicodeDecodeError:
        return False
    return True
