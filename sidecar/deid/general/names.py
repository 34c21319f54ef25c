"""Pseudonyms of resources and the date shift of a patient: derived from a key, or drawn at random and kept. Pure.

What is derived from a key can be made again wherever the key is; HIPAA does not count it as de-identified by itself
(45 CFR 164.514(c)(1): not derived from information about the individual). What is drawn at random is found again only
in the vault, which identifies everybody and is to be kept like the chart.
"""

import re
import secrets
from datetime import timedelta
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from sidecar.errors import Misconfigured

LONGEST_SHIFT_DAYS = 365
_KEY_BYTES = 32
_TOKEN_BYTES = 16
_SITE = re.compile(r"[A-Za-z0-9._\-]{1,64}", re.ASCII)


class Names(Protocol):
    """Who is called what. The same question has the same answer for as long as the key or the vault is kept."""

    def token(self, type_name: str, logical_id: str) -> str:
        """32 hexadecimal characters for the resource `type_name`/`logical_id`."""
        ...

    def shift(self, patient: str) -> timedelta:
        """Whole days, never none, by which every date of the Patient with the logical id `patient` moves."""
        ...


class Vault(Protocol):
    """Where random names are kept. It says who everybody is."""

    def get(self, name: str) -> str | None:
        """What was put under `name`, if anything was."""
        ...

    def put(self, name: str, value: str) -> None:
        """Keep `value` under `name`, in place of what was there."""
        ...


def _begin(site: str) -> str:
    """What stands before every question about the resources of `site`, of which no two servers have one.

    Raises:
        Misconfigured: no name of a site.
    """
    if site and _SITE.fullmatch(site) is None:
        raise Misconfigured(["deid site: 1 to 64 letters, digits, dots, hyphens or underscores"])
    return f"site|{site}|" if site else ""


class KeyedNames:
    """Names by HMAC-SHA256 under one key: nothing to store, and the same in every process that has the key.

    Resources of one `site` have no name in common with those of another.

    Raises:
        Misconfigured: the key is shorter than 32 bytes, or the site has no name that a site can have.
    """

    def __init__(self, key: bytes, site: str = "") -> None:
        if len(key) < _KEY_BYTES:
            raise Misconfigured([f"deid key: {_KEY_BYTES} random bytes are needed"])
        self._mac, self._begin = HMAC(key, SHA256()), _begin(site)

    def _digest(self, text: str) -> bytes:
        mac = self._mac.copy()
        mac.update((self._begin + text).encode("utf-8", "surrogatepass"))
        return mac.finalize()

    def token(self, type_name: str, logical_id: str) -> str:
        """The first 128 bits of the HMAC. A type name has no bar in it, so no two questions are one text."""
        return self._digest(f"token|{type_name}|{logical_id}")[:_TOKEN_BYTES].hex()

    def shift(self, patient: str) -> timedelta:
        """Uniform over ±1 to ±365 days; the bias of the remainder of 256 bits is far below anything measurable."""
        return _shift(int.from_bytes(self._digest(f"dateshift|{patient}")) % (2 * LONGEST_SHIFT_DAYS))


class VaultNames:
    """Random names of the resources of one `site`, kept in a vault with the moments that distances are measured from.

    Raises:
        Misconfigured: the site has no name that a site can have.
    """

    def __init__(self, vault: Vault, site: str = "") -> None:
        self._vault, self._begin = vault, _begin(site)

    def token(self, type_name: str, logical_id: str) -> str:
        """128 random bits, drawn when the resource is met for the first time."""
        name = f"{self._begin}token|{type_name}|{logical_id}"
        found = self._vault.get(name)
        if found is None:
            found = secrets.token_hex(_TOKEN_BYTES)
            self._vault.put(name, found)
        return found

    def shift(self, patient: str) -> timedelta:
        """A random shift, drawn when the patient is met for the first time."""
        name = f"{self._begin}dateshift|{patient}"
        found = self._vault.get(name)
        if found is None:
            found = str(secrets.randbelow(2 * LONGEST_SHIFT_DAYS))
            self._vault.put(name, found)
        return _shift(int(found))

    def anchor(self, patient: str) -> str | None:
        """What was kept of the moment that the distances of this patient are measured from."""
        return self._vault.get(f"{self._begin}anchor|{patient}")

    def keep_anchor(self, patient: str, written: str) -> None:
        """Keep it, in place of what was kept before."""
        self._vault.put(f"{self._begin}anchor|{patient}", written)


def _shift(number: int) -> timedelta:
    """0 to 729 as -365 to 365 days without 0."""
    days = number - LONGEST_SHIFT_DAYS
    return timedelta(days=days if days < 0 else days + 1)
