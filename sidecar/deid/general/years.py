"""Dates where only a year may stay: one year a patient, and how far everything lies from its moment. Pure.

Years and exact distances of many moments tell more than a year: two moments a minute apart in two years are New Year's
Eve, and so is the date of all others known. A single year leaves the day open. 45 CFR 164.514(b)(2)(i)(C).
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec

from sidecar.deid.general.moments import Written
from sidecar.deid.general.names import VaultNames
from sidecar.deid.general.tally import GENERALISED
from sidecar.deid.general.visit import Visit

RELATIVE_SECONDS = "urn:ehr-sidecar:relative-seconds"
RELATIVE_DAYS = "urn:ehr-sidecar:relative-days"
YEAR = "urn:ehr-sidecar:year"
OLDEST_YEARS = 89
_A_YEAR = timedelta(days=365)


class _Anchor(msgspec.Struct, frozen=True, gc=False):
    """That a date of a patient was met, and the moment that distances are measured from. Only a vault ever holds it.

    `before` and `after`: how many years distances may reach, as far as they were needed. Without a moment there was
    only a part of a date so far. `dated` says that the one year of the patient was given out.
    """

    at: datetime | None = None
    day: date | None = None
    before: int = 0
    after: int = 0
    dated: bool = True

    def reaching(self, at: datetime) -> "_Anchor | None":
        """The same, reaching to `at`; None when not all distances fit into a life of 89 years then."""
        by = at - self.at if self.at is not None else timedelta()
        years = -(-abs(by) // _A_YEAR)
        before, after = (
            (max(self.before, years), self.after) if by < timedelta() else (self.before, max(self.after, years))
        )
        if before + after > OLDEST_YEARS:
            return None
        return (
            self
            if (before, after) == (self.before, self.after)
            else msgspec.structs.replace(self, before=before, after=after)
        )

    def written(self) -> str:
        """For the vault."""
        parts = (
            self.at.isoformat() if self.at else "",
            self.day.isoformat() if self.day else "",
            self.before,
            self.after,
            int(self.dated),
        )
        return " ".join(map(str, parts))

    @classmethod
    def read(cls, text: str) -> "_Anchor":
        """From the vault."""
        at, day, before, after, *dated = text.split(" ")
        moment, on = (datetime.fromisoformat(at), date.fromisoformat(day)) if at else (None, None)
        return cls(moment, on, int(before), int(after), dated != ["0"])


class Years:
    """The year of the first date that is met of a patient, and distances from their first moment; else nothing.

    Of nobody's dates nothing stays: what points to them may have a distance. No year is written that shows an age over
    89, no two distances that lie further apart than such an age, and beside a year no distance that leads to one that
    may not be written. What is met in a resource that is refused, or whatever else is taken back, counts as never met.
    """

    def __init__(self, today: date, names: VaultNames) -> None:
        self._oldest = today.year - OLDEST_YEARS
        self._names = names
        self._met: dict[str, _Anchor] = {}
        self._changed: list[tuple[str, _Anchor | None]] = []

    def put(self, out: dict[str, Any], name: str, written: Written, visit: Visit) -> str | None:
        """Write the element `name` into `out`; says what was done, None when nothing may be written."""
        owner = visit.owner()
        if owner is None:
            return None
        anchor = self._anchor(owner)
        year = f"{written.year:04d}" if anchor is None and written.year >= self._oldest else None
        first = anchor or _Anchor(dated=year is not None)
        beside = self._beside(written, owner, first)
        if anchor is None and owner not in self._met:
            self._keep(owner, first)
        if year is not None and visit.kind == "instant":
            beside = [{"url": YEAR, "valueDate": year}, *beside]
        elif year is not None:
            out[name] = year
        if beside:
            out[f"_{name}"] = {"extension": beside}
        return GENERALISED if beside or name in out else None

    def mark(self) -> Callable[[], None]:
        """What takes back whatever is met from here on."""
        length = len(self._changed)

        def back() -> None:
            while len(self._changed) > length:
                owner, before = self._changed.pop()
                if before is None:
                    del self._met[owner]
                else:
                    self._met[owner] = before

        return back

    def settle(self) -> None:
        """What was met has been given out: keep it in the vault."""
        for owner in {owner: None for owner, _ in self._changed}:
            self._names.keep_anchor(owner, self._met[owner].written())
        self._changed.clear()

    def _anchor(self, owner: str) -> _Anchor | None:
        if owner not in self._met:
            kept = self._names.anchor(owner)
            if kept is None:
                return None
            self._met[owner] = _Anchor.read(kept)
        return self._met[owner]

    def _keep(self, owner: str, anchor: _Anchor) -> None:
        before = self._met.get(owner)
        if anchor is not before:
            self._changed.append((owner, before))
            self._met[owner] = anchor

    def _beside(self, written: Written, owner: str, anchor: _Anchor) -> list[dict[str, Any]]:
        if written.day is None:
            return []
        moment = written.moment
        at = moment or datetime.combine(written.day, time(), UTC)
        if anchor.dated and min(at.year, written.year) < self._oldest:
            return []
        if anchor.at is None or anchor.day is None:
            anchor = msgspec.structs.replace(anchor, at=at, day=written.day)
        reaching = anchor.reaching(at)
        if reaching is None or anchor.at is None or anchor.day is None:
            return []
        self._keep(owner, reaching)
        if moment is None:
            return [{"url": RELATIVE_DAYS, "valueInteger": (written.day - anchor.day).days}]
        seconds = (moment - anchor.at).total_seconds()
        return [{"url": RELATIVE_SECONDS, "valueDecimal": int(seconds) if seconds.is_integer() else seconds}]


def unchanged() -> None:
    """Takes nothing back: where dates are moved or stay, nothing depends on what was met."""
