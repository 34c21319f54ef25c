"""Create or adopt our R4 Subscriptions, and see that they are active.

A classic Subscription has no handshake, numbers or heartbeat: `sidecar.intake.catch_up` always runs beside it.
https://hl7.org/fhir/R4/subscription.html
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.errors import Rejected, Retryable
from sidecar.fhir.client import EhrClient
from sidecar.intake.sources import Source
from sidecar.metrics import SUBSCRIPTION_ACTIVE
from sidecar.records import Reference, is_fhir_id
from sidecar.store import Statement, Step, Store

KEEP = Statement(
    "keep_subscription",
    "INSERT INTO subscription (source, remote_id, status, reason, checked_at) "
    "VALUES (:source, :remote_id, :status, :reason, :now) "
    "ON CONFLICT (source) DO UPDATE SET remote_id = coalesce(excluded.remote_id, subscription.remote_id), "
    "status = excluded.status, reason = excluded.reason, checked_at = excluded.checked_at",
)
REMEMBERED = Statement("remembered", "SELECT remote_id FROM subscription WHERE source = :source")
ALL = Statement(
    "subscriptions",
    "SELECT source, remote_id, status, reason, watermark, checked_at FROM subscription",
)


class Subscriptions:
    """Our Subscriptions at one EHR. `endpoint` is `{public_url}/notify/{source}`."""

    def __init__(self, client: EhrClient, store: Store, public_url: str, secret: str) -> None:
        self._client, self._store = client, store
        self._public_url = public_url.rstrip("/")
        self._secret = secret
        self._asked: set[str] = set()

    async def ensure(self, sources: Iterable[Source], now: float) -> bool:
        """Make every source's Subscription exist and ask it to be active. True when all are.

        A source that the EHR refuses is recorded with the reason; the catch-up search still finds its events.

        Raises:
            Unavailable: the EHR does not answer.
        """
        healthy = True
        for source in sources:
            try:
                resource = await self._ensure_one(source)
                status, reason = str(resource.get("status")), None
                remote_id = resource.get("id")
            except (Rejected, Retryable) as refusal:
                status, reason, remote_id = "refused", refusal.reason, None
            row = {
                "source": source.name,
                "remote_id": remote_id,
                "status": status,
                "reason": reason,
                "now": now,
            }
            await self._store.commit(Step(KEEP, [row]))
            SUBSCRIPTION_ACTIVE.labels(source.name).set(status == "active")
            healthy = healthy and status == "active"
        return healthy

    async def _ensure_one(self, source: Source) -> Mapping[str, Any]:
        wanted = self._wanted(source)
        found = await self._find(source)
        if found is None:
            logical_id = await self._create(wanted)
        else:
            logical_id = str(found["id"])
            if self._differs(source, found, wanted):
                await self._client.send(
                    "update", "PUT", f"Subscription/{logical_id}", ok={200, 201}, body=wanted | {"id": logical_id}
                )  # fmt: skip
        self._asked.add(source.name)
        current = await self._client.read(Reference("Subscription", logical_id))
        if current is None:
            raise Retryable("ehr_lost:subscription")
        return current

    async def _create(self, wanted: Mapping[str, Any]) -> str:
        answer = await self._client.send("create", "POST", "Subscription", ok={200, 201}, body=wanted)
        logical_id = self._client.located(answer.location, "Subscription")
        if logical_id is None and isinstance(answer.body, Mapping) and is_fhir_id(answer.body.get("id")):
            logical_id = str(answer.body["id"])
        if logical_id is None:
            raise Retryable("ehr_shape:create")
        return logical_id

    def _differs(self, source: Source, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        """Whether the EHR must be asked again: it gave up, or (once a process) it holds something else.

        Once only, because some servers spell criteria their own way or hide the headers: asking such a server for
        ever would never make it agree.
        """
        if found.get("status") in ("error", "off"):
            return True
        same = found.get("channel") == wanted["channel"] and found.get("criteria") == wanted["criteria"]
        return not same and source.name not in self._asked

    async def _find(self, source: Source) -> Mapping[str, Any] | None:
        """Ours: the one remembered, else one with our endpoint, which is adopted instead of made twice."""
        rows = await self._store.read(REMEMBERED, source=source.name)
        remote_id = rows[0]["remote_id"] if rows else None
        if remote_id is not None and is_fhir_id(remote_id):
            known = await self._client.read(Reference("Subscription", remote_id))
            if known is not None and _endpoint_of(known) == self._endpoint(source):
                return known
        async for resource in self._client.search("Subscription", {"url": self._endpoint(source)}):
            if _endpoint_of(resource) == self._endpoint(source) and is_fhir_id(resource.get("id")):
                return resource
        return None

    def _endpoint(self, source: Source) -> str:
        return f"{self._public_url}/notify/{source.name}"

    def _wanted(self, source: Source) -> dict[str, Any]:
        return {
            "resourceType": "Subscription",
            "status": "requested",
            "reason": f"Clinical risk scoring: {source.name} events",
            "criteria": source.criteria,
            "channel": {
                "type": "rest-hook",
                "endpoint": self._endpoint(source),
                "payload": "application/fhir+json",
                "header": [f"Authorization: Bearer {self._secret}"],
            },
        }


def _endpoint_of(subscription: Mapping[str, Any]) -> str | None:
    channel = subscription.get("channel")
    return channel.get("endpoint") if isinstance(channel, Mapping) else None
