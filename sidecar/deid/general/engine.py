"""A FHIR resource in, its de-identified form out. Pure."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from sidecar.deid.general.names import Names
from sidecar.deid.general.references import Scope
from sidecar.deid.general.tables import Tables
from sidecar.deid.general.tally import Tally
from sidecar.deid.general.visit import Refused, Visit
from sidecar.deid.mode import Mode
from sidecar.deid.policy import Policy


class Engine:
    """De-identifies resources by `policy` in one mode.

    `today` is the facility's local date, by which ages over 89 are judged. The distances of `safe_harbor_rules` are
    measured from the first moment that is met of each patient in a resource that is given out; the vault of the names
    keeps it, so that all that goes through one vault can be compared. Memory: some hundred bytes a patient in that
    mode, none in the others.

    Raises:
        Misconfigured: `safe_harbor_rules` with names that are not drawn at random and kept in a vault, or a policy that
            keeps what cannot be kept.
    """

    def __init__(self, policy: Policy, mode: Mode, names: Names, today: date, tally: Tally | None = None) -> None:
        self.tally = tally if tally is not None else Tally()
        self._names = names
        self._tables = Tables(policy, mode, today, names)
        self._alone = Scope(self._tables.types)

    def resource(self, resource: Mapping[str, Any]) -> dict[str, Any] | None:
        """The de-identified form of `resource`; None when it is refused, and the tally says why.

        Bundles, Parameters and contained resources are walked; one that is refused in there is left out alone. The
        given resource is not changed, and nothing of it is shared with what is returned.
        """
        visit = Visit(resource, self._alone, _Remembered(self._names), self.tally)
        own, type_name = resource.get("id"), resource.get("resourceType")
        if isinstance(own, str) and isinstance(type_name, str):
            visit.key = (type_name, own)
        try:
            out = self._tables.whole(visit)
        except Refused as refused:
            self.tally.refused[refused.reason] += 1
            return None
        self.tally.add(visit.done, visit.passed)
        return out


class _Remembered:
    """Names that are asked for once a Bundle."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._tokens: dict[tuple[str, str], str] = {}
        self._shifts: dict[str, timedelta] = {}

    def token(self, type_name: str, logical_id: str) -> str:
        key = type_name, logical_id
        found = self._tokens.get(key)
        if found is None:
            found = self._tokens[key] = self._names.token(type_name, logical_id)
        return found

    def shift(self, patient: str) -> timedelta:
        found = self._shifts.get(patient)
        if found is None:
            found = self._shifts[patient] = self._names.shift(patient)
        return found
