"""What people ask of the models' log: a transition, who writes now, who wrote then, why, and how often it would call.

Each is answered by whichever process is asked, from the database; a transition is in force everywhere within a second.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from typing import Any
from zoneinfo import ZoneInfo

from sidecar.errors import Misconfigured, NotStored
from sidecar.evidence import Archive, in_shadow
from sidecar.fleet import BESIDE, UNHEARD
from sidecar.manifest import Manifest
from sidecar.pipeline import RunningModel
from sidecar.records import Assessment, Outcome
from sidecar.registry import Registry, unbelievable
from sidecar.rollout import (
    SETTINGS,
    UNSURE,
    Alerts,
    Ask,
    Changed,
    Entry,
    Seen,
    Standing,
    Standings,
    Version,
    What,
    new_in_shadow,
    stood,
    why_not,
)
from sidecar.rollout.standing import OF_A_VERSION, OF_ALL, WRITES

LONGEST = 500
"""Characters of what a person says."""
# A whole date, a social security number, or as many digits as a number of a record has. No name is told from a word.
_OF_A_PERSON = re.compile(
    r"\d{6}|\d{3}-\d\d-\d{4}|\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2}"
    r"|\d{1,2}\.? (?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?,? \d{4}",
    re.IGNORECASE | re.ASCII,
)
LOWEST_THAT_CALLS = 1
LOOK_FIRST = "before you repeat it, look at what stands (sidecar models which): a second rollback goes back further"

Verb = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class Decisions:
    """The verbs of one process. Days are those of the facility."""

    def __init__(self, registry: Registry, archive: Archive, zone: ZoneInfo) -> None:
        self._registry, self._archive, self._zone = registry, archive, zone
        self._book, self._fleet = registry.book, registry.fleet

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """By path at the admin door. Each raises Misconfigured with why not, or NotStored."""
        return {
            "/models/transition": self.transition,
            "/models/state": self.state,
            "/models/history": self.history,
            "/models/which": self.which,
            "/models/shadow-report": self.shadow_report,
            "/models/reload": self.reload,
        }

    async def transition(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Append what is asked for, if it may be; how the model stands then."""
        await self._registry.look()
        ask = await self._complete(_ask(body))
        try:
            entry = await self._book.append(partial(self._decided, ask))
        except Changed as error:
            raise Misconfigured([unbelievable(error)]) from None
        except NotStored as error:
            if error.reason != UNSURE:
                raise
            raise Misconfigured([f"the database did not say whether it was recorded; {LOOK_FIRST}"]) from None
        try:
            state = await self.state({})
        except NotStored:
            number = entry.number if entry else 0
            raise Misconfigured([f"recorded as entry {number}; the database is away since; {LOOK_FIRST}"]) from None
        return {"done": _said(entry) if entry else None, **state}

    async def _decided(self, ask: Ask, now: Standings) -> Ask:
        """What is asked for, if it may be as things stand.

        Raises:
            Misconfigured: it may not, or a rollback would return to a version that is not there.
        """
        why = why_not(ask, now)
        if why is not None:
            raise Misconfigured([f"{ask.what.value}{f' {ask.model}' if ask.model else ''}: {why}"])
        standing = now.of(ask.model)
        if ask.what is What.ROLLBACK and standing.canary is None:  # the end of a canary never waits for anything
            try:
                await asyncio.to_thread(self._fleet.must_load, ask.model, standing.champions[-2])
            except Misconfigured as error:
                cure = "put it back, or suspend the model, which stops what it writes"
                raise Misconfigured(
                    [f"rollback {ask.model}: {problem}; {cure}" for problem in error.problems]
                ) from None
        return ask

    async def _complete(self, ask: Ask) -> Ask:
        """With its version verified and its evidence looked at."""
        if ask.what in OF_ALL:
            return ask
        if ask.model not in self._fleet.promotions:
            known = ", ".join(sorted(self._fleet.promotions))
            raise Misconfigured([f'the settings run no model "{ask.model}"; they run: {known}'])
        if ask.what not in OF_A_VERSION:
            return ask
        model = await self._found(ask)
        version = Version(model.loaded.manifest.version, model.loaded.digest)
        await self._book.seen(ask.model, version)
        if ask.what not in WRITES:
            return _with(ask, version, ask.evidence)
        self._registry.must_have_its_card(model)
        return _with(ask, version, await self._evidence(ask, model))

    async def _found(self, ask: Ask) -> RunningModel:
        """The version that is asked for, or the one that can be meant."""
        standing = self._fleet.standings.of(ask.model)
        named = ask.version.version if ask.version else None
        if named is None and ask.what in WRITES:
            named = _meant(standing)
        model = await asyncio.to_thread(self._fleet.find, ask.model, named)
        if not self._fleet.hears(model.loaded.manifest):
            raise Misconfigured([UNHEARD])
        return model

    async def _evidence(self, ask: Ask, model: RunningModel) -> str:
        """What was said, and what its shadow period came to.

        Raises:
            Misconfigured: it never ran in shadow, and nobody says why that does not matter.
        """
        found = await self._alerts(ask.model, model)
        if not found.results and not ask.override:
            problem = (
                f"{ask.model} {model.loaded.manifest.version} has no results from shadow: let it run there first "
                "(sidecar models shadow-report), or say with --override why it need not"
            )
            raise Misconfigured([problem])
        rate = found.to_json()["alerts_per_100_patient_days"]
        called = "alerts not defined" if rate is None or len(found.bands) < 2 else f"{rate:g} alerts per 100"
        summary = f"shadow: {found.results} results in {found.patient_days} patient-days, {called}"
        return "; ".join(part for part in (ask.evidence, summary if found.results else "") if part)

    async def state(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """How every model of the settings stands, and whether writing is stopped."""
        del body
        await self._registry.look()
        standings = self._fleet.standings
        models = {name: _standing(standings.of(name)) for name in self._fleet.promotions}
        running = [
            {"track": t, "version": m.loaded.manifest.version, "arm": m.arm.value} for t, m in self._fleet.running
        ]
        lacks = [*self._fleet.lacks(), *self._fleet.lacks_besides()]
        return {"stopped": self._registry.stopped, "models": models, "running": running, "lacks": lacks}

    async def history(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Every entry, or those of one model and of all models, verified from the first one on."""
        name = body.get("model")
        entries = await self._verified()
        return {"entries": [_said(e) for e in entries if name is None or e.ask.model in {name, ""}]}

    async def which(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """How a model, or each, stood at a moment; now, when none is given."""
        at = _moment(body.get("at"))
        then = stood(await self._verified(), at.timestamp())
        name = body.get("model")
        names = sorted(then.models) if name is None else [str(name)]
        models = {n: _standing(then.of(n)) for n in names}
        return {"at": at.isoformat(), "stopped": then.stopped, "models": models}

    async def shadow_report(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """How often a version would have called somebody, from what it said in shadow."""
        name, version = str(body.get("model")), body.get("version")
        if version is None:
            version = _meant(self._fleet.standings.of(name))
        model = await asyncio.to_thread(self._fleet.find, name, str(version))
        said = {"model": name, "version": str(version), "digest": model.loaded.digest}
        return {**said, **(await self._alerts(name, model)).to_json()}

    async def reload(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Look at the models' folders again: a new version begins in shadow, and nothing else changes."""
        del body
        await asyncio.to_thread(self._fleet.reload)
        for name, model in self._fleet.configured.items():
            version = Version(model.loaded.manifest.version, model.loaded.digest)
            await self._book.seen(name, version)
            await self._book.append(partial(_new, name, version))
        return await self.state({})

    async def _verified(self) -> list[Entry]:
        try:
            return await self._book.from_the_first()
        except Changed as error:
            raise Misconfigured([unbelievable(error)]) from None

    async def _alerts(self, name: str, model: RunningModel) -> Alerts:
        manifest = model.loaded.manifest
        alerts = Alerts(bands(manifest))
        beside = f"{name}{BESIDE}{manifest.version}"
        async for patient in in_shadow(self._archive, name, beside, model.loaded.digest):
            for stored in patient:
                day = stored.conclusion.evidence.occurred_at.astimezone(self._zone).date()
                alerts.add(Seen(stored.patient_key, day, level(stored.conclusion.assessment, manifest)))
        return alerts


def bands(manifest: Manifest) -> tuple[str, ...]:
    """The codes of a model's bands from the lowest up; of probabilities, `none` first: one may be in no band.

    Outputs with bands of their own share the levels: each is named after the bands that are so high.
    """
    if manifest.bands:
        return tuple(band.risk for band in reversed(manifest.bands))
    ladders = [[band.risk for band in reversed(output.bands)] for output in manifest.outputs if output.bands]
    levels = (dict.fromkeys(code for code in level if code) for level in zip_longest(*ladders))
    return ("none", *(" or ".join(codes) for codes in levels)) if ladders else ()


def level(assessment: Assessment, manifest: Manifest) -> int | None:
    """How high the band of a result is, of several outputs the highest; None when it gave nothing that is charted.

    An incomplete result that is charted calls somebody, whatever its band.
    """
    if assessment.outcome is Outcome.INCOMPLETE:
        return max(_level(assessment, manifest), LOWEST_THAT_CALLS) if assessment.urgent else None
    return None if assessment.outcome is Outcome.NOT_SCORED else _level(assessment, manifest)


def _level(assessment: Assessment, manifest: Manifest) -> int:
    if manifest.bands:
        names = bands(manifest)
        return names.index(assessment.risk) if assessment.risk in names else 0
    given = assessment.probabilities
    found = ((o.bands, o.band(given[o.name])) for o in manifest.outputs if o.name in given)
    return max((len(ladder) - ladder.index(band) for ladder, band in found if band is not None), default=0)


async def _new(name: str, version: Version, now: Standings) -> Ask | None:
    return new_in_shadow(name, version, now.of(name))


def _ask(body: Mapping[str, Any]) -> Ask:
    """What a body asks for.

    Raises:
        Misconfigured: it means nothing.
    """
    said = {name: str(body.get(name) or "").strip() for name in ("who", "why", "evidence", "override")}
    problems = [f"{name}: at most {LONGEST} characters on one line" for name, text in said.items() if not _fits(text)]
    problems += [
        f"{name}: no whole date and no number of six digits or more: it is kept in the open and must not name a patient"
        for name, text in said.items()
        if _OF_A_PERSON.search(text)
    ]
    if said["evidence"] == SETTINGS:
        problems.append(f'evidence: "{SETTINGS}" is what the settings file decided; say where yours lies')
    percent = body.get("percent")
    if percent is not None and not isinstance(percent, int | float):
        problems.append("percent: not a number")
    if str(body.get("what")) not in set(What):
        problems.append(f"no transition; they are: {', '.join(What)}")
    if problems:
        raise Misconfigured(problems)
    what = What(str(body["what"]))
    model = "" if what in OF_ALL else str(body.get("model") or "")
    version = Version(str(body["version"]), "") if body.get("version") else None
    return Ask(
        what, model, said["who"], said["why"], version, percent if what is What.CANARY else None,
        str(body.get("by") or "patient"), said["evidence"], said["override"],
    )  # fmt: skip


def _fits(text: str) -> bool:
    return len(text) <= LONGEST and (not text or text.isprintable())


def _with(ask: Ask, version: Version, evidence: str) -> Ask:
    return Ask(ask.what, ask.model, ask.who, ask.why, version, ask.percent, ask.by, evidence, ask.override)


def _meant(standing: Standing) -> str:
    """The one version that can be meant when none is named.

    Raises:
        Misconfigured: there is none, or more than one.
    """
    waiting = [standing.canary.version] if standing.canary else list(standing.shadows)
    if len(waiting) != 1:
        named = ", ".join(v.version for v in waiting) or "none"
        raise Misconfigured([f"say which --version; in shadow: {named}"])
    return waiting[0].version


def _moment(said: object) -> datetime:
    if said is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(str(said))
    except ValueError:
        raise Misconfigured(["at: not a moment such as 2026-11-25T08:00:00+00:00"]) from None
    if at.tzinfo is None:
        raise Misconfigured(["at: say the offset, as in 2026-11-25T08:00:00+00:00"])
    return at


def _version(version: Version | None) -> dict[str, str] | None:
    return {"version": version.version, "digest": version.digest} if version else None


def _standing(s: Standing) -> dict[str, Any]:
    canary = (
        {**(_version(s.canary.version) or {}), "percent": s.canary.percent, "by": s.canary.by} if s.canary else None
    )
    return {
        "champion": _version(s.champion),
        "canary": canary,
        "shadow": [_version(v) for v in s.shadows],
        "suspended": s.suspended,
        "back_to": _version(s.champions[-2]) if len(s.champions) > 1 else None,
    }


def _said(entry: Entry) -> dict[str, Any]:
    ask = entry.ask
    return {
        "number": entry.number,
        "at": datetime.fromtimestamp(entry.at, UTC).isoformat(),
        "what": ask.what.value,
        "model": ask.model or None,
        "version": ask.version.version if ask.version else None,
        "digest": ask.version.digest if ask.version else None,
        "percent": ask.percent,
        "by": ask.by if ask.what is What.CANARY else None,
        "who": ask.who,
        "why": ask.why,
        "evidence": ask.evidence or None,
        "override": ask.override or None,
        "entry_digest": entry.digest.hex(),
    }
