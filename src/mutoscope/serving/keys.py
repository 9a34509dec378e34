"""API keys: random, stored as sha256 only, each of a tenant that sees nothing but its own videos."""

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

from mutoscope.errors import InputError
from mutoscope.serving.jobs import Store

LOCAL = "local"
"""The tenant of a server without keys (which listens on this machine only)."""

FRESH = 1.0
"""Seconds after which the server looks for new and revoked keys."""

NAME = re.compile(r"[\w.-]{1,60}")


@dataclass(frozen=True)
class Key:
    """What is known of a key: everything but the key."""

    id: str
    tenant: str
    name: str
    created_at: int
    revoked_at: int | None


def create_key(store: Store, name: str, tenant: str | None = None) -> tuple[Key, str]:
    """Make a key; returns it with its secret, which is shown this once. `tenant` None is one of its own name.

    Raises InputError for a name that is not 1 to 60 letters, digits, dots or dashes.
    """
    owner = tenant or name
    for word in (name, owner):
        if not NAME.fullmatch(word):
            raise InputError(
                f"The name {word!r} is not allowed; use 1 to 60 letters, digits, dots or dashes."
            )
    secret = f"mk_{secrets.token_urlsafe(32)}"
    key = Key(f"key_{secrets.token_hex(4)}", owner, name, int(time.time()), None)
    row = (key.id, _digest(secret), key.tenant, key.name, key.created_at)
    store.connection().execute(
        "INSERT INTO keys (id, digest, tenant, name, created_at) VALUES (?, ?, ?, ?, ?)", row
    )
    return key, secret


def list_keys(store: Store) -> list[Key]:
    """All keys, the revoked ones too, oldest first."""
    rows = store.connection().execute("SELECT * FROM keys ORDER BY created_at, id")
    return [Key(row["id"], row["tenant"], row["name"], row["created_at"], row["revoked_at"]) for row in rows]


def revoke_key(store: Store, identifier: str) -> None:
    """End a key. Raises InputError when there is no valid one of this id."""
    query = "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
    done = store.connection().execute(query, (int(time.time()), identifier))
    if done.rowcount != 1:
        raise InputError(f"There is no valid key {identifier!r}; `mutoscope keys list` shows them.")


class Keyring:
    """The valid keys, read again from the store every second."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read_at = -FRESH
        self._tenants: dict[bytes, str] = {}
        self._ever = False

    def tenant(self, authorization: str) -> str | None:
        """Whose key an Authorization header carries; without any key ever made, everybody is LOCAL."""
        now = time.monotonic()
        if now - self._read_at >= FRESH:
            rows = self.store.connection().execute("SELECT digest, tenant, revoked_at FROM keys").fetchall()
            self._tenants = {
                bytes.fromhex(row["digest"]): row["tenant"] for row in rows if row["revoked_at"] is None
            }
            self._ever, self._read_at = bool(rows), now
        if not self._ever:
            return LOCAL
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = bytes.fromhex(_digest(secret.strip()))
        found = None
        for known, tenant in self._tenants.items():  # every key is compared, each in constant time
            if hmac.compare_digest(known, digest):
                found = tenant
        return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
