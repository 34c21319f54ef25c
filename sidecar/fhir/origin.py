"""What is on the configured EHR, and what is not. Pure: text in, a path or None out; nothing is connected to.

Two URLs have one origin when scheme, host and port are the same, the case of scheme and host and an explicit default
port apart (RFC 6454 §4, RFC 3986 §6.2). No other spelling of a host is understood: a number, an octal, a trailing
dot or an encoded letter is another host. What is kept of a link is its path, never its host.
"""

import re
from urllib.parse import SplitResult, urljoin, urlsplit

MAX_LINK_CHARS = 8000
"""Longer than any server takes in a request line."""

_PORTS = {"http": 80, "https": 443}
# An encoded dot, slash, backslash or percent sign in a path, or an overlong one in UTF-8: a server that decodes once
# more would leave the base.
_ENCODED_STEP = re.compile("%(2e|2f|5c|25|c0|c1)", re.IGNORECASE)
# ".." and, for servers that cut path parameters off first, "..;x".
_STEP_UP = re.compile(r"\.\.(;.*)?")
# "http:x", "http:///x" and "///x" name no host, though joining them to a base would give them the base's.
_NO_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:(?!//[^/?#])|//(?![^/?#])")
_VISIBLE = re.compile(r"[!-\[\]-~]*")

Origin = tuple[str, str, int]


def origin(url: str) -> Origin | None:
    """Scheme, host and port of an http(s) URL; None when it has none, names a user, or is no URL."""
    try:
        return _origin(urlsplit(url))
    except ValueError:
        return None


def _origin(parts: SplitResult) -> Origin | None:
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, _PORTS[parts.scheme] if parts.port is None else parts.port


class Base:
    """The configured FHIR base; `text` has no slash at its end."""

    def __init__(self, url: str) -> None:
        self.text = url.rstrip("/")
        parts = urlsplit(self.text)
        self._origin, self._path, self._root = origin(self.text), parts.path, f"{parts.scheme}://{parts.netloc}"

    def inside(self, link: str) -> str | None:
        """What stands behind the base in `link`, path and query; None when `link` is not under the base."""
        parts = self._ours(link)
        if parts is None or not (parts.path == self._path or parts.path.startswith(f"{self._path}/")):
            return None
        rest = parts.path[len(self._path) :].removeprefix("/")
        return f"{rest}?{parts.query}" if parts.query else rest

    def beside(self, link: str) -> str | None:
        """`link` as a URL of the base's origin, spelled with the base's own host; None when it is another's.

        Not necessarily under the base: a token endpoint stands beside it.
        """
        parts = self._ours(link)
        if parts is None:
            return None
        return f"{self._root}{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"

    def _ours(self, link: str) -> SplitResult | None:
        if len(link) > MAX_LINK_CHARS or not _VISIBLE.fullmatch(link) or _NO_HOST.match(link):
            return None
        try:
            given, parts = urlsplit(link), urlsplit(urljoin(f"{self.text}/", link))
            same = self._origin is not None and _origin(parts) == self._origin
        except ValueError:
            return None
        if not same or _ENCODED_STEP.search(given.path) or any(map(_STEP_UP.fullmatch, given.path.split("/"))):
            return None
        return parts
