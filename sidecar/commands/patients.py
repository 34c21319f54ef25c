"""`sidecar patients forget`."""

import sys
from pathlib import Path

from sidecar import settings
from sidecar.commands.door import door


def forget(config: Path, patient: str) -> None:
    """Delete what is stored of one patient, and say with which keys copies can still be read. The id is not repeated.

    Raises:
        Misconfigured: it is no id, or there is no database.
        Unavailable: the server does not answer, or the patient is heard of faster than forgotten.
    """
    with door(settings.load(config)) as ask:
        done = ask("POST", "/patients/forget", {"patient": patient})
    named = ", ".join(f"key {key}" for key in done["keys"])
    sys.stdout.write(
        f"{done['rows']} rows deleted; the chart in the EHR stays as it is, and what is heard from now on begins anew\n"
        f"copies made before (backups, the database's log and free pages) open with {named} until retired: "
        "sidecar keys rotate, sidecar keys reseal, sidecar keys retire\n"
    )
