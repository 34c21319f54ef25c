"""Create or adopt our R4 Subscriptions, and see that they are active.

A classic Subscription has no handshake, numbers or heartbeat: `sidecar.intake.catch_up` always runs beside it.
https://hl7.org/fhir/R4/subscription.html
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.errors import Rejected, Retryable, Unavailable
from sidecar.fhir.client import EhrClient
from sidecar.intake.sources import Source
from sidecar.metrics import SUBSCRIPTION_ACTIVE
from sidecar.records import Reference, is_fhir_id
from sidecar.store import Statement, Step, Store

KEEP = Statement(
    "keep_subscription",
    "INSERT INTO subscription (source, remote_id, status, reason, checked_at) "
    "VALUES (:source, :remote_id, :status, :reason, :now) "
    "ON CONFLICT (source) DO UPDATE SET remote_id = excluded.remote_id, status = excluded.status, "
    "reason = excluded.reason, checked_at = excluded.checked_at",
)
ALL = Statement(
    "subscriptions",
    "SELECT source, remote_id, status, reason, watermark, last_event_at, checked_at FROM subscription",
)


class Subscriptions:
    """Our Subscriptions at one EHR. `endpoint` is `{public_url}/notify/{source}`."""

    def __init__(self, client: EhrClient, store: Store, public_url: str, secret: str) -> None:
        self._client, self._store = client, store
        self._public_url = public_url.rstrip("/")
        self._secret = secret

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
            answer = await self._client.send("create", "POST", "Subscription", ok={200, 201}, body=wanted)
            logical_id = self._client.located(answer.location, "Subscription")
            if logical_id is None and isinstance(answer.body, Mapping) and is_fhir_id(answer.body.get("id")):
                logical_id = str(answer.body["id"])
        else:
            logical_id = str(found["id"])
            if found.get("status") in {"error", "off"} or found.get("channel") != wanted["channel"]:
                await self._client.send(
                    "update",
                    "PUT",
                    f"Subscription/{logical_id}",
                    ok={200, 201},
                    body=wanted | {"id": logical_id},
                )
        if logical_id is None:
            raise Retryable("ehr_shape:create")
        current = await self._client.read(Reference("Subscription", logical_id))
        if current is None:
            raise Unavailable("ehr_lost:subscription")
        return current

    async def _find(self, source: Source) -> Mapping[str, Any] | None:
        """One of ours with the same endpoint and criteria: adopted instead of made twice."""
        query = {"url": self._endpoint(source)}
        async for resource in self._client.search("Subscription", query):
            channel = resource.get("channel")
            same = isinstance(channel, Mapping) and channel.get("endpoint") == self._endpoint(source)
            if same and resource.get("criteria") == source.criteria and is_fhir_id(resource.get("id")):
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
