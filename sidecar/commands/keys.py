"""`sidecar keys`: those that sign us in, and those of the encrypted columns while servers use them."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from sidecar import settings
from sidecar.commands.door import Ask, door
from sidecar.errors import Misconfigured

SERVERS_S = 12.0
"""How long servers are waited for before it is said that they lack a key."""


def smart(path: Path, algorithm: str, *, rotate: bool) -> None:
    """Make or rotate the key file; the public set on standard output, what was done on standard error.

    Raises:
        Misconfigured: the file exists, or is no usable key file.
    """
    from sidecar.fhir.signing_keys import new_signing_keys, rotate_signing_keys

    keys = (rotate_signing_keys if rotate else new_signing_keys)(path, algorithm)
    sys.stdout.write(orjson.dumps(keys.public(), option=orjson.OPT_INDENT_2).decode() + "\n")
    sys.stderr.write(
        f"wrote {path}; register the public keys above at the EHR, or the address where the server publishes them: "
        "{server.public_url}/.well-known/jwks.json\n"
    )


def rotate(config: Path) -> None:
    """Put a fresh key into the ring and let it seal; running servers take it from the file within seconds.

    It is in the file before the database learns its number, and seals only after that: a command that is cut short
    leaves at worst a key that nobody uses, and of two rings that grow apart only one gets the number.

    Raises:
        Misconfigured: another command changes the ring, the database knows a newer one, or every number is used.
    """
    from sidecar.store.cipher import fingerprints
    from sidecar.store.keyfile import fresh_key, only_one, read_keys, replace_keys

    found = settings.load(config)
    path = found.store.key_file
    with only_one(path), door(found) as ask:
        keys = read_keys(path)
        number = _next_number(path, set(keys.keys), _state(ask))
        grown = keys.grown(number, fresh_key())
        replace_keys(path, grown)
        print_ = fingerprints(grown)[f"key {number}"]
        if not ask("POST", "/keys/leave", {"name": f"key {number}", "fingerprint": print_.hex()})["left"]:
            replace_keys(path, keys)
            raise Misconfigured([f"key {number} was taken by another ring just now; try again with the newest ring"])
        replace_keys(path, grown.turned(number))
        _state(ask)  # whoever is asked looks at the file first
    sys.stdout.write(
        f"key {number} is in {path}; servers with this file seal with it within 2 s, others need a copy of it\n"
        "next: back the file up apart from the database, then: sidecar keys reseal\n"
    )


def _next_number(path: Path, ours: set[int], state: Any) -> int:
    from sidecar.store.keyfile import MOST_KEYS

    known, retired = _numbers(state["known"]), _numbers(state["retired"])
    if missing := known - retired - ours:
        raise Misconfigured([f"{path}: lacks key {min(missing)}, which this database knows; use the newest ring"])
    number = max(known | ours) + 1
    if number > MOST_KEYS:
        used_up = f"all {MOST_KEYS} numbers of keys are used, and none is given twice"
        cure = "begin a new database with a new ring (store.url, sidecar keys new) and keep this one for what it holds"
        raise Misconfigured([f"{used_up}; {cure}"])
    return number


def _numbers(names: Iterable[str]) -> set[int]:
    return {int(name.removeprefix("key ")) for name in names if name != "lookup"}


def reseal(config: Path) -> None:
    """Seal everything again under the newest key, with progress; says which keys are not needed any more.

    Raises:
        Misconfigured: a server does not seal with the newest key yet.
    """
    from rich.console import Console
    from rich.progress import Progress

    with door(settings.load(config)) as ask, Progress(console=Console(stderr=True)) as progress:
        _wait_for_servers(ask)
        state = _state(ask, count=True)
        old = sum(count for key, count in state["values"].items() if key != str(state["sealing"]))
        bar = progress.add_task("sealing again", total=old)
        done = ask("POST", "/keys/reseal", {"begin": True})
        while not done["done"]:
            progress.update(bar, completed=done["resealed"])
            done = ask("POST", "/keys/reseal", {})
        progress.update(bar, completed=done["resealed"])
        state = _state(ask, count=True)
    sys.stdout.write(f"{done['resealed']} values sealed again with key {done['sealing']}\n")
    if done["unreadable"]:
        sys.stdout.write(f"{done['unreadable']} values do not open with this ring and were left as they are\n")
    for key in _idle(state):
        sys.stdout.write(f"key {key} seals nothing any more: sidecar keys retire {key}\n")
    if left := {k: n for k, n in state["values"].items() if k != str(state["sealing"])}:
        needed = ", ".join(f"key {key} for {count} values" for key, count in left.items())
        sys.stdout.write(f"still needed: {needed}\n")


def _wait_for_servers(ask: Ask) -> None:
    """A server takes a new key within 2 s, and says so within another 2; one that was killed counts for 8."""
    end = time.monotonic() + SERVERS_S
    while _state(ask)["lagging"] and time.monotonic() < end:
        time.sleep(0.5)


def retire(config: Path, number: int, *, anyway: bool) -> None:
    """Take a key that seals nothing out of the ring, for good; `anyway` as `Rotation.retire` has it.

    Raises:
        Misconfigured: it is needed, or may be; the sentence says what to do first.
    """
    from sidecar.store.keyfile import only_one, read_keys, replace_keys

    found = settings.load(config)
    path = found.store.key_file
    with only_one(path), door(found) as ask:
        keys = read_keys(path)
        ask("POST", "/keys/retire", {"key": number, "anyway": anyway})
        if number in keys.keys:
            replace_keys(path, keys.without(number))
        _state(ask)
    sys.stdout.write(
        f"key {number} is retired: what backups hold under it cannot be read any more\n"
        "next: destroy what copies there are of the ring with it, and make a backup\n"
    )


def _state(ask: Ask, *, count: bool = False) -> Any:
    return ask("POST", "/keys/state", {"count": count})


def _idle(state: Any) -> list[int]:
    """Keys that are neither retired nor needed."""
    idle = _numbers(state["known"]) - _numbers(state["retired"]) - {state["sealing"]}
    return sorted(idle - {int(key) for key in state["values"]})
