"""Create, read, update and delete on the chart, with their conditions. One function per FHIR interaction.

Synchronous: what is checked still holds when it is written. Used by the HTTP routes, by transactions and
in-process alike. https://hl7.org/fhir/R4/http.html
"""

import re
from dataclasses import dataclass

from sidecar.sandbox.chart import Chart, Version
from sidecar.sandbox.criteria import check_subscription
from sidecar.sandbox.outcome import Resource, refuse
from sidecar.sandbox.search import Dialect, parse_filters, select
from sidecar.sandbox.topics import Topics
from sidecar.sandbox.validation import Validator

_LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_ETAG = re.compile(r'(?:W/)?"([^"]+)"')
_SUBSETTED = "SUBSETTED"


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did: the version now current, and whether it is 200 (there before) or 201 (new)."""

    version: Version
    status: int


class Interactions:
    """The interactions of one EHR."""

    def __init__(self, chart: Chart, dialect: Dialect, validator: Validator) -> None:
        """Work on `chart`, within `dialect.capabilities`."""
        self.chart = chart
        self.dialect = dialect
        self.topics = Topics(chart, dialect)
        self._validator = validator

    def supported(self, type_name: str) -> str:
        """Return `type_name` if it is served.

        Raises:
            Refusal: 404, it is not.
        """
        if type_name not in self.dialect.capabilities.supported():
            raise refuse(404, "not-supported", f"resource type {type_name!r} is not supported by this server")
        return type_name

    def read(self, type_name: str, logical_id: str) -> Version:
        """Return the current version.

        Raises:
            Refusal: 404, never there; 410, deleted.
        """
        return self._readable(self.chart.current(self.supported(type_name), logical_id), type_name, logical_id)

    def vread(self, type_name: str, logical_id: str, version_id: str) -> Version:
        """Return one version.

        Raises:
            Refusal: 404, no such version; 410, it is a deletion; 405, the server keeps no history.
        """
        self.require_history()
        versions = self.chart.versions(self.supported(type_name), logical_id)
        wanted = [version for version in versions if str(version.number) == version_id]
        return self._readable(wanted[0] if wanted else None, type_name, f"{logical_id}/_history/{version_id}")

    def require_history(self) -> None:
        """Return if the server keeps history.

        Raises:
            Refusal: 405, it does not.
        """
        if not self.dialect.capabilities.history:
            raise refuse(405, "not-supported", "this server supports neither vread nor history")

    def create(self, type_name: str, resource: Resource, if_none_exist: str | None = None) -> Written:
        """Create under a new id, unless `if_none_exist` already finds one.

        Raises:
            Refusal: 400 or 422, invalid; 412, `if_none_exist` finds several.
        """
        self.check(type_name, resource)
        existing = self.existing(type_name, if_none_exist)
        if existing is not None:
            return Written(existing, 200)
        return Written(self.chart.put(type_name, self.chart.new_id(type_name), resource, "POST"), 201)

    def existing(self, type_name: str, if_none_exist: str | None) -> Version | None:
        """Return the one resource `if_none_exist` finds.

        A server without conditional create has never heard of the header and creates anyway: so does this.

        Raises:
            Refusal: 412, several match; 400, the criteria cannot be used.
        """
        if if_none_exist is None or not self.dialect.capabilities.conditional_create:
            return None
        query = if_none_exist.partition("?")[2] or if_none_exist
        matches = select(parse_filters(type_name, query, self.dialect), self.chart)
        if len(matches) > 1:
            raise refuse(412, "multiple-matches", f"If-None-Exist {query!r} finds {len(matches)} resources")
        return matches[0] if matches else None

    def update(
        self,
        type_name: str,
        logical_id: str,
        resource: Resource,
        if_match: str | None = None,
    ) -> Written:
        """Store the next version, or the first where the server lets clients choose ids.

        Raises:
            Refusal: 400 or 422, invalid; 405, no such id and ids are the server's; 412, another version.
        """
        self.check(type_name, resource)
        if _LOGICAL_ID.fullmatch(logical_id) is None:
            raise refuse(400, "value", f"{logical_id!r} is not a FHIR id")
        if resource.get("id") != logical_id:
            raise refuse(400, "value", f"the resource's id must be {logical_id!r}, as in the URL")
        self._require_match(type_name, logical_id, if_match)
        existed = self.chart.alive(type_name, logical_id) is not None
        if not existed and not self.dialect.capabilities.update_create:
            raise refuse(405, "not-supported", f"{type_name}/{logical_id} does not exist; ids are ours to give")
        return Written(self.chart.put(type_name, logical_id, resource), 200 if existed else 201)

    def delete(self, type_name: str, logical_id: str, if_match: str | None = None) -> Version:
        """Delete; deleting again changes nothing.

        Raises:
            Refusal: 404, never there; 412, another version.
        """
        current = self.chart.current(self.supported(type_name), logical_id)
        if current is None:
            raise _unknown(type_name, logical_id)
        if current.resource is None:
            return current
        self._require_match(type_name, logical_id, if_match)
        return self.chart.delete(type_name, logical_id)

    def check(self, type_name: str, resource: Resource) -> None:
        """Return if `resource` can be stored as a `type_name`.

        Raises:
            Refusal: 400 or 422.
        """
        self.supported(type_name)
        if resource.get("resourceType") != type_name:
            raise refuse(400, "value", f"resourceType must be {type_name}, as in the URL")
        self._validator.check(resource)
        if any(tag.get("code") == _SUBSETTED for tag in resource.get("meta", {}).get("tag", [])):
            raise refuse(422, "business-rule", "a SUBSETTED resource would lose what was left out of it")
        if type_name == "Subscription":
            old = self.chart.alive(type_name, resource.get("id", ""))
            check_subscription(resource, old.resource if old else None, self.dialect, self.topics)
        if type_name == "Basic":
            self.topics.check(resource)

    def _require_match(self, type_name: str, logical_id: str, if_match: str | None) -> None:
        if if_match is None:
            return
        etag = _ETAG.fullmatch(if_match.strip())
        if etag is None:
            raise refuse(400, "value", f'If-Match must read W/"version", not {if_match!r}')
        alive = self.chart.alive(type_name, logical_id)
        if alive is None or str(alive.number) != etag[1]:
            current = f"version {alive.number}" if alive else "nothing"
            raise refuse(412, "conflict", f"If-Match {if_match} but {type_name}/{logical_id} is {current}")

    def _readable(self, version: Version | None, type_name: str, what: str) -> Version:
        if version is None:
            raise _unknown(type_name, what)
        if version.resource is None:
            raise refuse(410, "deleted", f"{type_name}/{what} is deleted")
        return version


def _unknown(type_name: str, what: str) -> Exception:
    return refuse(404, "not-found", f"{type_name}/{what} is not known")
