"""Which label values /metrics may show: what settings, manifests and the code define. Whatever else stands there is told."""

import re
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families

from sidecar.app import running_models
from sidecar.duties import DUTIES
from sidecar.fhir.token_endpoint import PROBLEMS
from sidecar.intake import sources_for
from sidecar.manifest import Manifest
from sidecar.monitoring import bins_for
from sidecar.settings import Settings

STATUSES = frozenset(str(n) for n in (200, 202, 400, 401, 404, 405, 408, 411, 413, 415, 429, 431, 499, 500, 501, 503))
OPERATIONS = ("create", "metadata", "operation", "probe", "read", "search", "update")
TASKS = ("route", "catch-up", "assess", "write", "pings", "leases", "inflow", "door-hook", "door-ops", "door-admin", "notifications", "metrics", "token", *DUTIES)  # fmt: skip
TROUBLES = ("missing", "stale", "future", "status", "modifier", "shape", "unit", "unmapped", "ambiguous", "comparator", "implausible", "imprecise", "absent", "contradictory", "out_of_cohort", "unreadable")  # fmt: skip
ABOUT = ("patient", "encounter", "birth_date", "sex", "age", "inactive", "deceased", "discharged", "wait")
ENDS = re.compile(
    r"assessed|no_model|gone|no_patient|buried|caught_up|unknown_source|(off_origin|too_large|too_many|grammar):(next|answer|pages|search|path)"
    r"|ehr_refused:4\d\d"
)
OF_NO_MODEL = re.compile(
    r"gone:patient|another_patient|grammar:(id|path)|ehr_refused:4\d\d|(too_many|too_large|off_origin):\w{4,6}"
)
Allowed = Mapping[str, frozenset[str] | re.Pattern[str]]


def _details(manifest: Manifest) -> set[str]:
    """What may come after the colon of a reason."""
    sources = {s.name for f in manifest.features.values() for s in f.sources if s.name}
    cohort = {rule.reason for rule in (*manifest.cohort.exclude_when, *manifest.cohort.require)}
    return {*manifest.features, *sources, *cohort, *ABOUT}


def _reasons(manifests: Iterable[Manifest]) -> re.Pattern[str]:
    details = sorted({re.escape(d) for m in manifests for d in _details(m)})
    return re.compile(rf"({'|'.join(TROUBLES)}):({'|'.join(details)})|{OF_NO_MODEL.pattern}")


def closed_sets(settings: Settings) -> Mapping[str, Allowed]:
    """By the name of a label, and of its metric where that matters (`metric.label`), the values it may have."""
    models = running_models(settings)
    manifests = [m.loaded.manifest for m in models.values()]
    bins = {n: bins_for(m.loaded.reference) for n, m in models.items()}
    sources = frozenset(s.name for s in sources_for(manifests))
    return {
        "": {
            "model": frozenset({*models, "unknown"}), "version": frozenset(m.version for m in manifests),
            "digest": frozenset(m.loaded.digest[:12] for m in models.values()), "arm": frozenset({"champion", "shadow"}),
            "feature": frozenset(f for of in bins.values() for f in of), "bin": frozenset(n for of in bins.values() for b in of.values() for n in b.names),
            "source": sources | {"unknown"}, "stage": frozenset({"record", "route", "context", "assess", "settle", "write"}),
            "operation": frozenset(OPERATIONS), "status_class": re.compile("[2-5]xx|none"), "door": frozenset({"hook", "ops", "admin"}),
            "queue": frozenset({"events", "writes"}), "duty": frozenset(DUTIES), "place": frozenset(TASKS), "le": re.compile(r"[0-9.]+|\+Inf"),
            "outcome": frozenset({"scored", "incomplete", "not_scored"}), "how": frozenset({"events", "search", "restart"}),
            "type": frozenset({"RiskAssessment", "Observation", "Device", "Patient", "Encounter", "Condition", "Subscription"}),
            "interaction": frozenset({"create", "read", "update", "search", "delete"}),
        },
        "sidecar_notifications": {"result": STATUSES},
        "sidecar_events": {"result": ENDS},
        "sidecar_deliveries": {"result": frozenset({"written", "cancelled", "expired", "superseded", "buried"})},
        "sidecar_duplicates": {"result": frozenset({"withdrawn", "left"})},
        "sidecar_ehr_tokens": {"result": frozenset({"granted", *PROBLEMS})},
        "sidecar_not_scored": {"reason": _reasons(manifests)},
        "sidecar_intake_full": {"reason": frozenset({"inbox", "source", "disk", "commits"})},
        "sidecar_connections_cut": {"reason": frozenset({"head", "unread", "crowded", "malformed"})},
    }  # fmt: skip


def strange(exposition: str, sets: Mapping[str, Allowed]) -> Iterator[str]:
    """Labels with a value outside the closed sets, or with no set at all."""
    for family in text_string_to_metric_families(exposition):
        own = {**sets[""], **sets.get(family.name.removesuffix("_created"), {})}
        for sample in family.samples:
            for name, value in sample.labels.items():
                allowed = own.get(name, frozenset())
                fits = allowed.fullmatch(value) if isinstance(allowed, re.Pattern) else value in allowed
                if not fits:
                    yield f"{family.name}: {name} is from no closed set: {value}"
