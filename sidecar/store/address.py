"""Where a PostgreSQL is and how it is spoken to: by `store.url` alone.

The driver fills what it is not told from PG* variables and files of the home directory; a host or a certificate from
there would not be the one that was checked. So it is told everything. https://www.postgresql.org/docs/current/libpq-envars.html
"""

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sidecar.errors import Misconfigured

PORT = 5432


def address(url: str, password: str | None) -> dict[str, Any]:
    """What the driver is told.

    Raises:
        Misconfigured: the URL names no host and no folder, or a file of certificates or keys cannot be used.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORT
    except ValueError:
        raise Misconfigured(["store.url: cannot be used as it is"]) from None
    options = dict(parse_qsl(parts.query))
    folder = options.get("host", "")
    host = parts.hostname or (folder if folder.startswith("/") else "")
    user, name = unquote(parts.username or ""), unquote(parts.path.removeprefix("/"))
    if not (host and user and name):
        raise Misconfigured(["store.url: needs a user, a database, and a host or ?host=/folder of its socket"])
    return {
        "host": host,
        "port": port,
        "user": user,
        "database": name,
        "password": password or "",  # none at all would be looked for elsewhere
        "ssl": False if host.startswith("/") else _encryption(options),
        "direct_tls": False,
        "target_session_attrs": "any",
        "krbsrvname": "postgres",
        "gsslib": "gssapi",
    }


def _encryption(options: Mapping[str, str]) -> ssl.SSLContext | bool:
    mode = options.get("sslmode", "disable")
    if mode == "disable":
        return False
    try:
        # With no file of its own, the machine's authorities, as for the EHR.
        context = ssl.create_default_context(cafile=options.get("sslrootcert"))
        context.check_hostname = mode == "verify-full"
        if mode == "require":
            context.verify_mode = ssl.CERT_NONE
        if "sslcert" in options:
            context.load_cert_chain(options["sslcert"], options.get("sslkey"), password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        problem = f"store.url: its certificates or keys cannot be used ({type(error).__name__})"
        raise Misconfigured([problem]) from None
    return context
