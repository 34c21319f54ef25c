"""Write one resource so that repeating it has exactly one effect, by the best way the server supports.

1. PUT with a deterministic id (update-as-create). 2. POST with `If-None-Exist` on the identifier. 3. Search, then POST:
a time-out means *unknown*, never *failed*, so every further attempt looks first, and not before the POST has ended
(`sidecar.writeback.sending`). What the chart holds twice nevertheless is reduced to one.
https://hl7.org/fhir/R4/http.html#upsert https://hl7.org/fhir/R4/http.html#ccreate
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from sidecar import log
from sidecar.errors import Conflict, Rejected, Retryable, TooEarly, Unavailable
from sidecar.fhir import references
from sidecar.fhir.capability import Capability, Ladder
from sidecar.fhir.client import EhrClient, MayBegin, always
from sidecar.metrics import DUPLICATES
from sidecar.records import Reference, is_fhir_id
from sidecar.writeback import twins
from sidecar.writeback.render import AIAST
from sidecar.writeback.sending import Sending

_SERVER_OWNED = {"id", "meta", "text"}


class LadderWriter:
    """Writes through one client with one server's abilities. `may_write` is awaited before each request that writes."""

    def __init__(
        self, client: EhrClient, capability: Capability, forced: Ladder | None = None, may_write: MayBegin = always
    ) -> None:
        self._client, self._capability, self._forced = client, capability, forced
        self._may_write = may_write

    def takes(self, type_name: str) -> bool:
        """Whether the server can hold a resource of this type."""
        able = self._capability.of(type_name)
        return able.create or able.update

    async def locate(self, resource: Mapping[str, Any]) -> str | None:
        """Where the chart holds `resource` already, under our id or our identifier; None when it does not.

        Raises:
            Rejected: it is there twice, and the server updates nothing.
        """
        type_name, logical_id = str(resource["resourceType"]), str(resource["id"])
        if (self._forced or self._capability.ladder(type_name)) == "put":
            if await self._client.read(Reference(type_name, logical_id)) is not None:
                return logical_id
            # A server that can search by neither ignores what it is asked, and would show every patient's.
            if not {"identifier", "patient"} & self._capability.of(type_name).search:
                return None
        return await self._find(resource)

    async def write(
        self, resource: Mapping[str, Any], known_id: str | None, sending: Sending, *, look_first: bool
    ) -> str:
        """Make the chart hold `resource`; its id there. `known_id` is where an earlier revision lives.

        `sending` surrounds a create that nothing but a search guards.

        Raises:
            Rejected: the server refuses it, has it twice, or cannot do what is needed.
            Unavailable, Retryable: unknown whether it happened; repeat with `look_first`.
            ClaimLost, TooEarly: `sending` says that it is not ours to send.
        """
        type_name = str(resource["resourceType"])
        ladder = self._forced or self._capability.ladder(type_name)
        try:
            if ladder == "put":
                return await self._put(resource, known_id, look_first=look_first or known_id is not None)
            if known_id is not None:
                await self._bring_up_to_date(resource, known_id)
                if ladder == "search":
                    await self._tidy(resource, known_id)
                return known_id
            if ladder == "conditional":
                return await self._conditional(resource, sending)
            return await self._search_first(resource, sending)
        except Conflict as conflict:
            raise Retryable(conflict.reason, 0.2) from None

    async def _put(self, resource: Mapping[str, Any], known_id: str | None, *, look_first: bool) -> str:
        type_name, logical_id = str(resource["resourceType"]), known_id or str(resource["id"])
        if look_first:
            there = await self._client.read(Reference(type_name, logical_id))
            if there is not None:
                if not _same(resource, there):
                    await self._update(resource, logical_id, there)
                return logical_id
            # A lower rung may have made it before, under an id of the server's choice. A twin would bar every
            # conditional create of it from then on (412; seen on HAPI, tests/peers).
            if known_id is None and "identifier" in self._capability.of(type_name).search:
                found = await self._find(resource)
                if found is not None:
                    return await self._bring_up_to_date(resource, found)
        await self._client.send(
            "update", "PUT", f"{type_name}/{logical_id}", ok={200, 201},
            body={**resource, "id": logical_id}, headers={"Prefer": "return=minimal"},
            may_begin=self._may_write,
        )  # fmt: skip
        return logical_id

    async def _bring_up_to_date(self, resource: Mapping[str, Any], logical_id: str) -> str:
        there = await self._client.read(Reference(str(resource["resourceType"]), logical_id))
        if there is None:
            raise Rejected("gone:written_resource")
        if not _same(resource, there):
            await self._update(resource, logical_id, there)
        return logical_id

    async def _update(self, resource: Mapping[str, Any], logical_id: str, there: Mapping[str, Any]) -> None:
        if not self._capability.of(str(resource["resourceType"])).update:
            raise Rejected("ehr_cannot:update")
        # A server that began anew gives ids a second time: what we remember may be somebody else's by now.
        ours, theirs = (references.of(r.get("subject"), self._client.base_url) for r in (resource, there))
        if ours is not None and (theirs is None or theirs.relative != ours.relative):
            raise Rejected("another_patient")
        version = (there.get("meta") or {}).get("versionId")
        headers = {"Prefer": "return=minimal"}
        if is_fhir_id(version):
            headers["If-Match"] = f'W/"{version}"'
        await self._client.send(
            "update", "PUT", f"{resource['resourceType']}/{logical_id}", ok={200, 201},
            body={**resource, "id": logical_id}, headers=headers,
            may_begin=self._may_write,
        )  # fmt: skip

    async def _tidy(self, resource: Mapping[str, Any], known_id: str) -> None:
        """Withdraw what arrived beside the one we know, later than anybody waited for it."""
        try:
            await self._find(resource, known_id)
        except Rejected as refusal:  # the one that we know says what it must
            log.get().warning("twins not looked for", reason=refusal.reason)

    async def _conditional(self, resource: Mapping[str, Any], sending: Sending) -> str:
        system, value = _identifier(resource)
        answer = await self._client.send(
            "create", "POST", str(resource["resourceType"]), ok={200, 201, 412}, body=_unnamed(resource),
            headers={"If-None-Exist": f"identifier={_token(system, value)}"}, may_begin=self._may_write,
        )  # fmt: skip
        if answer.status == 412:
            found = await self._find(resource)
            if found is None:
                raise Rejected("duplicate:in_ehr")
            return await self._bring_up_to_date(resource, found)
        logical_id = self._new_id(answer.location, answer.body, resource)
        if logical_id is None:
            return await self._search_first(resource, sending)
        return logical_id if answer.status == 201 else await self._bring_up_to_date(resource, logical_id)

    async def _search_first(self, resource: Mapping[str, Any], sending: Sending) -> str:
        found = await self._find(resource)
        if found is not None:
            return await self._bring_up_to_date(resource, found)
        return await self._create(resource, sending)

    async def _create(self, resource: Mapping[str, Any], sending: Sending) -> str:
        """POST. Its last byte has left, or never will, when the client's longest wait has passed since `begin`."""
        clock = asyncio.get_running_loop()
        too_late = clock.time() + self._client.timeout_s
        await sending.begin()
        if clock.time() >= too_late:  # a slow database, or a process that was stopped: somebody else may go on
            raise Retryable("too_late:create")
        try:
            async with asyncio.timeout_at(too_late):
                answer = await self._client.send(
                    "create", "POST", str(resource["resourceType"]), ok={200, 201}, body=_unnamed(resource),
                    may_begin=self._may_write,
                )  # fmt: skip
        except TimeoutError:
            raise Unavailable("ehr_unreachable:TimeoutError") from None
        except (Rejected, Conflict, TooEarly):  # refused: nothing is under way. After any other error it may be
            await sending.end()
            raise
        logical_id = self._new_id(answer.location, answer.body, resource) or await self._find(resource)
        if logical_id is None:
            raise Retryable("ehr_shape:create")
        await sending.end()
        return logical_id

    def _new_id(self, location: str | None, body: Any, resource: Mapping[str, Any]) -> str | None:
        type_name = str(resource["resourceType"])
        logical_id = self._client.located(location, type_name)
        if logical_id is None and isinstance(body, Mapping) and body.get("resourceType") == type_name:
            logical_id = str(body["id"]) if is_fhir_id(body.get("id")) else None
        return logical_id

    async def _find(self, resource: Mapping[str, Any], known_id: str | None = None) -> str | None:
        """The one resource with our identifier: by identifier where that can be searched, else among the subject's.

        Where there are several, `known_id` or the oldest is kept and the others are withdrawn.
        """
        found = await self._all(resource)
        if not all(twins.shaped(r) for r in found):
            raise Retryable("ehr_shape:search")
        kept_id = known_id or twins.kept(found)
        for twin in found:
            if twin["id"] != kept_id and not twins.is_withdrawn(twin):
                await self._withdraw(twin, str(kept_id))
        return kept_id

    async def _withdraw(self, twin: Mapping[str, Any], kept_id: str) -> None:
        type_name = str(twin["resourceType"])
        able = self._capability.of(type_name).update
        DUPLICATES.labels(type_name, "withdrawn" if able else "left").inc()
        log.get().error("found twice", reason="duplicate:in_ehr", source=type_name)
        if not able and type_name == "Device":  # a second one says nothing of anybody, and must not bar every result
            return
        if not able:
            raise Rejected("duplicate:in_ehr")
        await self._update(twins.withdrawn(twin, kept_id), str(twin["id"]), twin)

    async def _all(self, resource: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Everything with our identifier."""
        type_name = str(resource["resourceType"])
        system, value = _identifier(resource)
        if "identifier" in self._capability.of(type_name).search:
            query = {"identifier": f"{system}|{value}"}
        elif isinstance(resource.get("subject"), Mapping):
            query = {"patient": str(resource["subject"]["reference"]).removeprefix("Patient/")}
        else:
            query = {}
        return [
            r
            async for r in self._client.search(type_name, query)
            if r.get("resourceType") == type_name
            and any((i.get("system"), i.get("value")) == (system, value) for i in r.get("identifier") or ())
        ]


def _same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether the chart already says what we would write; the server may have added to it, labels included."""
    if not _labels(ours) <= _labels(theirs):
        return False
    return all(_plain(theirs.get(key)) == _plain(value) for key, value in ours.items() if key not in _SERVER_OWNED)


def _labels(resource: Mapping[str, Any]) -> set[tuple[Any, Any]]:
    """Its security labels, but for the one of every result: a server that keeps none is not written to again for it."""
    meta = resource.get("meta")
    said = meta.get("security") if isinstance(meta, Mapping) else None
    listed = said if isinstance(said, list) else []
    found = {(str(label.get("system")), str(label.get("code"))) for label in listed if isinstance(label, Mapping)}
    return {label for label in found if label[1] != AIAST["code"]}


def _plain(value: Any) -> Any:
    """`value` with references as some servers (HAPI) keep them: without the version."""
    if isinstance(value, Mapping):
        return {k: v.partition("/_history/")[0] if k == "reference" else _plain(v) for k, v in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _identifier(resource: Mapping[str, Any]) -> tuple[str, str]:
    first = resource["identifier"][0]
    return first["system"], first["value"]


def _token(system: str, value: str) -> str:
    return f"{system}%7C{value}"


def _unnamed(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if key != "id"}
