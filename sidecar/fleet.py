"""The versions that run now: which one scores whom, and in which arm. Changed as a whole, while everything runs.

A *track* is what the worker knows as a model: `news2` is the one whose results may be charted, scored by its champion
or, for some patients, by its canary. `news2@2.0.0` is a version in shadow beside it: with results of its own under
identities of its own, so that nothing it says can revise, end or replace what is in a chart.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from sidecar import log, metrics
from sidecar.context import Need
from sidecar.errors import Misconfigured, NotHere
from sidecar.features import Extractor, SiteChoices, open_choices
from sidecar.inbox import ModelWait
from sidecar.manifest import Manifest
from sidecar.monitoring import Bins, bins_for
from sidecar.pipeline import RunningModel
from sidecar.records import Arm
from sidecar.rollout import Canary, Standing, Standings, Version, in_canary
from sidecar.scoring import LoadedModel, declared, load_models
from sidecar.settings import ModelSettings, Settings
from sidecar.store import Cipher

BESIDE = "@"
"""Between the name and the version of a track that runs in shadow beside the model's own."""
UNHEARD = "it reads codes that nothing here listens for yet: restart the servers first"
ELSEWHERE_S, AGAIN_S = 2.0, 5.0
"""Before work of a version that cannot be loaded here is looked at again, and before its folder is."""


def shipped(name: str) -> Path:
    """A folder that ships with the project (`models`, `ward`), in a checkout or an installed package."""
    package = Path(__file__).parent
    checkout = {"models": package.parent / "models", "ward": package.parent / "fhir_fixtures" / "ward"}[name]
    return checkout if checkout.is_dir() else package / "shipped" / name


def running_model(loaded: LoadedModel, site: ModelSettings) -> RunningModel:
    """A loaded model with the site's decisions, in shadow: the log says who may write.

    Raises:
        Misconfigured: the settings name a switch or an input that the model does not have, or leave a choice open.
    """
    manifest = loaded.manifest
    unknown = [f"models.{manifest.name}.switches.{n}" for n in site.switches if n not in manifest.switches]
    unknown += [f"models.{manifest.name}.max_age.{n}" for n in site.max_age if n not in manifest.features]
    unknown += [f"models.{manifest.name}.choices.{n}" for n in site.choices if n not in manifest.choices]
    problems = [f"{name}: the model has no such name" for name in unknown] + open_choices(manifest, site.choices)
    if problems:
        raise Misconfigured(problems)
    debounce = site.debounce or manifest.events.debounce
    max_wait = site.max_wait or manifest.events.max_wait
    return RunningModel(
        loaded=loaded,
        extractor=Extractor(manifest, SiteChoices(site.switches, site.choices, site.max_age, site.spread)),
        need=Need.of(manifest, site.max_age, site.spread),
        arm=Arm.SHADOW,
        wait=ModelWait(manifest.name, debounce.total_seconds(), max_wait.total_seconds()),
    )


def running_models(settings: Settings) -> dict[str, RunningModel]:
    """Every model that the settings name, in the version that they name, in shadow.

    Raises:
        Misconfigured: listing what is wrong with them.
    """
    loaded = load_models(_root(settings), {name: site.version for name, site in settings.models.items()})
    return {name: running_model(loaded[name], site) for name, site in settings.models.items()}


def _root(settings: Settings) -> Path:
    return settings.models_dir or shipped("models")


@dataclass(frozen=True, slots=True)
class _Picture:
    """Who scores what at one moment, by track.

    `absent` are tracks whose champion this process cannot run; a canary that it cannot run has no model here.
    """

    tracks: Mapping[str, RunningModel] = field(default_factory=lambda: MappingProxyType({}))
    canaries: Mapping[str, tuple[RunningModel | None, Canary]] = field(default_factory=lambda: MappingProxyType({}))
    absent: frozenset[str] = frozenset()

    @property
    def all(self) -> list[tuple[str, RunningModel]]:
        there = ((name, model) for name, (model, _) in self.canaries.items() if model is not None)
        return [*self.tracks.items(), *there]


class Fleet(Mapping[str, RunningModel]):
    """Every running model by its track. Iterating gives the tracks; `chosen` gives the version for one patient."""

    def __init__(self, settings: Settings, *, warm: bool = True) -> None:
        """Load what the settings name; until `take` it runs in shadow. One that is not `warm` loads what is asked for.

        Raises:
            Misconfigured: listing what is wrong with it.
        """
        self._root, self._sites = _root(settings), settings.models
        self._token: Callable[..., bytes] | None = None
        self.promotions: Mapping[str, tuple[str, str] | None] = {
            name: (site.promoted_by, site.promoted_because or "") if site.promoted_by is not None else None
            for name, site in settings.models.items()
        }
        self.configured: Mapping[str, RunningModel] = running_models(settings) if warm else {}
        self._loaded = {m.loaded.digest: m for m in self.configured.values()}
        self._made: dict[tuple[str, str, Arm], RunningModel] = {}
        self._failed: dict[str, float] = {}
        self._loading = asyncio.Lock()
        self.bins: dict[str, Mapping[str, Bins]] = {}
        self.standings = Standings()
        self._picture = _Picture(dict(self.configured))
        self.manifests = self._all_manifests()

    def sort_by(self, cipher: Cipher) -> None:
        """The ring whose look-up key sorts patients into arms."""
        self._token = cipher.token

    def __getitem__(self, track: str) -> RunningModel:
        return self._picture.tracks[track]

    def __iter__(self) -> Iterator[str]:
        return iter(self._picture.tracks)

    def __len__(self) -> int:
        return len(self._picture.tracks)

    @property
    def running(self) -> list[tuple[str, RunningModel]]:
        """Every version that scores somebody, by its track: a canary stands beside its champion."""
        return self._picture.all

    def runs(self, model: RunningModel) -> bool:
        """Whether `model` still scores somebody, in its arm."""
        return any(model is other for _, other in self._picture.all)

    def may_chart(self, track: str, digest: str) -> bool:
        """Whether what this version said may go into a chart that has none of it: it writes, or did until replaced."""
        standing = self.standings.of(track)
        writers = [*standing.champions, *([standing.canary.version] if standing.canary else [])]
        return not standing.suspended and any(version.digest == digest for version in writers)

    def is_withdrawn(self, track: str, digest: str) -> bool:
        """Whether this version was rolled back and speaks for the model no more: another has to say it again."""
        speaks = any(name == track and m.loaded.digest == digest for name, m in self._picture.all)
        return digest in self.standings.of(track).withdrawn and not speaks

    def hears(self, manifest: Manifest) -> bool:
        """Whether all that this version waits for is listened for since the start."""
        heard: dict[str, set[str]] = {}
        for known in self.manifests:
            for kind in known.types:
                heard.setdefault(kind, set()).update(known.codes_of(kind))
        return all(kind in heard and manifest.codes_of(kind) <= heard[kind] for kind in manifest.types)

    def asks_for_unit(self, track: str) -> bool:
        """Whether `chosen` needs the patient's unit."""
        canary = self._picture.canaries.get(track)
        return canary is not None and canary[1].by == "unit"

    def chosen(self, track: str, patient_key: bytes, unit: str | None = None) -> RunningModel | None:
        """The version that scores this patient; None when the track has ended.

        The same patient, or unit, gets the same answer for as long as the log stays as it is.

        Raises:
            NotHere: this process has not loaded it; another may have. A canary that is not here holds up its own
                patients and no others.
        """
        picture = self._picture
        if track in picture.canaries:
            model, canary = picture.canaries[track]
            if self._is_in(track, canary, unit if canary.by == "unit" else patient_key.hex()):
                if model is None:
                    raise NotHere("model_not_here", ELSEWHERE_S)
                return model
        if track in picture.absent:
            raise NotHere("model_not_here", ELSEWHERE_S)
        return picture.tracks.get(track)

    def _is_in(self, track: str, canary: Canary, whose: str | None) -> bool:
        if whose is None or self._token is None:
            return False
        return in_canary(self._token("arm", track, canary.version.version, canary.by, whose), canary.percent)

    def knows(self, track: str) -> bool:
        """Whether the settings name the model of this track."""
        return track.partition(BESIDE)[0] in self._sites

    async def of_result(self, track: str, version: str, digest: str) -> Manifest:
        """The manifest by which a result was made, whatever runs now. Nobody waits while its folder is read.

        Raises:
            NotHere: that version cannot be loaded by this process.
        """
        found = self._loaded.get(digest)
        if found is None and self.knows(track):
            name = track.partition(BESIDE)[0]
            async with self._loading:  # of many who want the same one, one reads it
                found = self._loaded.get(digest) or await asyncio.to_thread(self._try, name, Version(version, digest))
        if found is None:
            raise NotHere("model_not_here", ELSEWHERE_S)
        return found.loaded.manifest

    def reload(self) -> None:
        """Look at the folders again: where the settings name no version, the newest may be another by now.

        Raises:
            Misconfigured: listing what is wrong with them, or which of them read what is not heard; nothing changes.
        """
        found = {name: self.find(name, site.version) for name, site in self._sites.items()}
        unheard = [m.loaded.manifest for m in found.values() if not self.hears(m.loaded.manifest)]
        if unheard:
            raise Misconfigured([f"{manifest.name} {manifest.version}: {UNHEARD}" for manifest in unheard])
        self.configured = found
        self._failed.clear()

    def find(self, name: str, version: str | None) -> RunningModel:
        """A version from the models' folder, verified and kept warm.

        Raises:
            Misconfigured: the settings do not name the model, or the version cannot run here.
        """
        if name not in self._sites:
            known = ", ".join(sorted(self._sites))
            raise Misconfigured([f'the settings run no model "{name}"; they run: {known}'])
        found = running_model(load_models(self._root, {name: version})[name], self._sites[name])
        return self._loaded.setdefault(found.loaded.digest, found)

    def lacks_any(self, standings: Standings) -> bool:
        """Whether a version that stands is not loaded."""
        return any(version.digest not in self._loaded for _, version in self._stands(standings))

    def lacks(self) -> list[str]:
        """The champions that cannot be loaded, in words."""
        champions = ((name, self.standings.of(name).champion) for name in self._sites)
        return [
            f"{name} {version.version} writes, says the log, and its folder is not there as it was"
            for name, version in champions
            if version is not None and version.digest not in self._loaded
        ]

    def lacks_besides(self) -> list[str]:
        """The other versions that stand and cannot be loaded, in words: what follows from that."""
        found = []
        for name, version in self._stands(self.standings):
            standing = self.standings.of(name)
            if version.digest in self._loaded or version == standing.champion:
                continue
            follows = "it does not run in shadow"
            if standing.canary is not None and version == standing.canary.version:
                follows = "the patients of the canary wait"
            elif version in standing.champions:
                follows = "no rollback can return to it"
            found.append(f"{name} {version.version}: its folder is not there as it was; {follows}")
        return found

    def must_load(self, name: str, version: Version) -> None:
        """Have it loaded, now. May take long.

        Raises:
            Misconfigured: its folder is not there as it was.
        """
        self._failed.pop(version.digest, None)
        if version.digest not in self._loaded and self._try(name, version) is None:
            raise Misconfigured([f"{name} {version.version} cannot be loaded: its folder is not there as it was"])

    def load(self, standings: Standings) -> bool:
        """Load what stands and is not loaded, warm versions too, as far as it is there; whether anything was.

        May take long, and may be repeated.
        """
        before = len(self._loaded)
        for name, version in self._stands(standings):
            if version.digest not in self._loaded:
                self._try(name, version)
        return len(self._loaded) > before

    @property
    def is_whole(self) -> bool:
        """Whether this process can score for every model, with a canary too."""
        return not self._picture.absent and all(model is not None for model, _ in self._picture.canaries.values())

    def must_have_each(self) -> None:
        """Go on only where each model has a version that speaks for it: who must look is not known without.

        Raises:
            NotHere: another process may have it.
        """
        if self._picture.absent:
            raise NotHere("model_not_here", ELSEWHERE_S)

    def _stands(self, standings: Standings) -> Iterator[tuple[str, Version]]:
        return ((name, version) for name in self._sites for version in standings.of(name).warm)

    def take(self, standings: Standings) -> None:
        """Let what stands score from now on, in every track at once. `load` first: what is not loaded is absent."""
        before = self._picture
        tracks: dict[str, RunningModel] = {}
        canaries: dict[str, tuple[RunningModel | None, Canary]] = {}
        absent: set[str] = set()
        for name in self._sites:
            self._place(name, standings.of(name), (tracks, canaries, absent))
        self.standings = standings
        self._picture = _Picture(tracks, canaries, frozenset(absent))
        self._announce(before)

    def _place(
        self,
        name: str,
        standing: Standing,
        into: tuple[dict[str, RunningModel], dict[str, tuple[RunningModel | None, Canary]], set[str]],
    ) -> None:
        tracks, canaries, absent = into
        writes = Arm.SHADOW if standing.suspended else Arm.CHAMPION
        main = standing.champion or next((v for v in standing.shadows if v.digest in self._loaded), None)
        if main is None and name in self.configured:  # nothing of it stands: what the settings name speaks to nobody
            loaded = self.configured[name].loaded
            main = Version(loaded.manifest.version, loaded.digest)
        if main is None:
            return
        if main.digest in self._loaded:
            tracks[name] = self._as(main, name, writes if standing.champion else Arm.SHADOW)
        else:
            absent.add(name)
        if (canary := standing.canary) is not None:
            arm = Arm.SHADOW if standing.suspended else Arm.CANARY
            here = canary.version.digest in self._loaded
            canaries[name] = self._as(canary.version, name, arm) if here else None, canary
        for version in standing.shadows:
            if version != main and version.digest in self._loaded:
                track = f"{name}{BESIDE}{version.version}"
                tracks[track] = self._as(version, track, Arm.SHADOW)

    def _as(self, version: Version, track: str, arm: Arm) -> RunningModel:
        """One and the same for as long as it runs so."""
        key = version.digest, track, arm
        if key not in self._made:
            model = self._loaded[version.digest]
            self._made[key] = replace(model, track=track, arm=arm, wait=replace(model.wait, model=track))
        return self._made[key]

    def _try(self, name: str, version: Version) -> RunningModel | None:
        """That version, unless its folder is not there as it was; looked for again after a while."""
        if time.monotonic() < self._failed.get(version.digest, 0.0):
            return None
        try:
            found = self.find(name, version.version)
            if found.loaded.digest == version.digest:
                return found
            problem = "its folder holds another than the log names"
        except Misconfigured as error:
            problem = "; ".join(error.problems)
        if version.digest not in self._failed:
            log.get().error("model not loaded", model=name, problem=problem)
        self._failed[version.digest] = time.monotonic() + AGAIN_S
        return None

    def _all_manifests(self) -> list[Manifest]:
        """Of every version in the folders of the models that run: what any of them reads is listened for."""
        found = [m.loaded.manifest for m in self.configured.values()]
        return found + declared(self._root, self._sites)

    def _announce(self, before: _Picture) -> None:
        """Make every child of the models' metrics exist, with its reference, and say who runs."""
        now = [_who(name, model) for name, model in self._picture.all]
        for name, model in before.all:
            if model.track and _who(name, model) not in now:
                metrics.MODEL_INFO.remove(*_who(name, model))
        for name, model in self._picture.all:
            version = model.loaded.manifest.version
            metrics.MODEL_INFO.labels(name, version, model.loaded.digest[:12], model.arm.value).set(1)
        for name, model in self._picture.all:
            if model.loaded.digest not in self.bins:
                self.bins[model.loaded.digest] = bins_for(model.loaded.reference)
            _announce_bins(name, model.loaded.manifest.version, self.bins[model.loaded.digest])


def _who(name: str, model: RunningModel) -> tuple[str, str, str, str]:
    return name, model.loaded.manifest.version, model.loaded.digest[:12], model.arm.value


def _announce_bins(name: str, version: str, bins: Mapping[str, Bins]) -> None:
    for feature, spec in bins.items():
        metrics.REFERENCE_OBSERVATIONS.labels(name, version, feature).set(spec.observations)
        for bin_name in spec.names:
            metrics.BIN_OBSERVATIONS.labels(name, version, feature, bin_name)
            metrics.BIN_REFERENCE.labels(name, version, feature, bin_name).set(spec.ratios[bin_name])
