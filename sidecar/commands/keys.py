"""`sidecar keys smart`."""

import sys
from pathlib import Path

import orjson

from sidecar.fhir.signing_keys import new_signing_keys, rotate_signing_keys


def smart(path: Path, algorithm: str, *, rotate: bool) -> None:
    """Make or rotate the key file; the public set on standard output, what was done on standard error.

    Raises:
        Misconfigured: the file exists, or is no usable key file.
    """
    keys = (rotate_signing_keys if rotate else new_signing_keys)(path, algorithm)
    sys.stdout.write(orjson.dumps(keys.public(), option=orjson.OPT_INDENT_2).decode() + "\n")
    sys.stderr.write(
        f"wrote {path}; register the public keys above at the EHR, or the address where the server publishes them: "
        "{server.public_url}/.well-known/jwks.json\n"
    )
