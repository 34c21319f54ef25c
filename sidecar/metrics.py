"""The one registry. Label values come from closed sets: never a patient, encounter, user, id, URL or message.

`METRICS` describes each metric for the documentation; a test keeps README and registry the same.
"""

import functools

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry(auto_describe=True)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

EVENT_TO_WRITE_SECONDS = Histogram(
    "sidecar_event_to_write_seconds",
    "From hearing an event to its RiskAssessment being in the chart.",
    ["model"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "sidecar_stage_duration_seconds",
    "Time in one stage: record, route, context, assess, settle, write.",
    ["stage"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
EHR_REQUEST_SECONDS = Histogram(
    "sidecar_ehr_request_duration_seconds",
    "One request to the EHR, by operation and status class (none = no answer).",
    ["operation", "status_class"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
NOTIFICATIONS = Counter(
    "sidecar_notifications_total",
    "Notifications by source and answer.",
    ["source", "result"],
    registry=REGISTRY,
)
INTAKE_FULL = Gauge(
    "sidecar_intake_full",
    "1 while notifications are turned away, by what is full: inbox, source, disk, commits.",
    ["reason"],
    registry=REGISTRY,
)
INTAKE_PACE = Gauge(
    "sidecar_intake_pace",
    "Notifications a second that are taken at most, while the process has no CPU left and is behind; else 0.",
    registry=REGISTRY,
)
CONNECTIONS = Gauge("sidecar_connections", "Connections open, by door: hook, ops, admin.", ["door"], registry=REGISTRY)
CONNECTIONS_CUT = Counter(
    "sidecar_connections_cut_total",
    "Connections that were cut: slow head, unread answer, crowded, malformed request.",
    ["reason"],
    registry=REGISTRY,
)
EVENTS = Counter(
    "sidecar_events_total",
    "Events that ended, by result: assessed, no_model, gone, buried, …",
    ["result"],
    registry=REGISTRY,
)
ASSESSMENTS = Counter(
    "sidecar_assessments_total", "Assessments by model and outcome.", ["model", "outcome"], registry=REGISTRY
)
NOT_SCORED = Counter(
    "sidecar_not_scored_total",
    "Reasons why a score or a total was not given.",
    ["model", "reason"],
    registry=REGISTRY,
)
DELIVERIES = Counter(
    "sidecar_deliveries_total",
    "Writes to the chart by model and result.",
    ["model", "result"],
    registry=REGISTRY,
)
DUPLICATES = Counter(
    "sidecar_duplicates_total",
    "Resources of ours found twice in the chart, by type and what was done: withdrawn, left.",
    ["type", "result"],
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge("sidecar_queue_depth", "Rows waiting, by queue.", ["queue"], registry=REGISTRY)
QUEUE_OLDEST = Gauge(
    "sidecar_queue_oldest_age_seconds",
    "Age of the oldest row waiting, by queue.",
    ["queue"],
    registry=REGISTRY,
)
SUBSCRIPTION_LAST_EVENT = Gauge(
    "sidecar_subscription_last_event_timestamp_seconds",
    "When a subscription was last heard.",
    ["source"],
    registry=REGISTRY,
)
SUBSCRIPTION_ACTIVE = Gauge(
    "sidecar_subscription_active",
    "1 when the EHR says the subscription is active.",
    ["source"],
    registry=REGISTRY,
)
SUBSCRIPTION_GAPS = Counter(
    "sidecar_subscription_gaps_total",
    "Missed notifications found by event numbers, by how they were closed: events, search, restart.",
    ["source", "how"],
    registry=REGISTRY,
)
DUTIES = Gauge(
    "sidecar_duty_held",
    "1 in the one process that does the duty: subscriptions, catch-up, review, prune.",
    ["duty"],
    registry=REGISTRY,
)
EHR_AVAILABLE = Gauge("sidecar_ehr_available", "1 unless the EHR failed to answer last.", registry=REGISTRY)
TOKENS = Counter(
    "sidecar_ehr_tokens_total",
    "Access tokens asked for, by result: granted, or why not.",
    ["result"],
    registry=REGISTRY,
)
SCOPE_MISSING = Gauge(
    "sidecar_ehr_scope_missing",
    "1 when the EHR did not grant what is needed, by resource type and interaction.",
    ["type", "interaction"],
    registry=REGISTRY,
)
UNKNOWN_KEY = Counter(
    "sidecar_unknown_key_total",
    "Sealed values left to a server whose key ring is newer than this one's.",
    registry=REGISTRY,
)
SUPERSEDED = Gauge(
    "sidecar_superseded",
    "1 while this process leaves the work to servers that were started later with other models or settings.",
    registry=REGISTRY,
)
WRITES_STOPPED = Gauge(
    "sidecar_writes_stopped",
    "1 while this process writes into no chart: somebody said so, or the log of model transitions was changed.",
    registry=REGISTRY,
)
BIN_OBSERVATIONS = Counter(
    "sidecar_feature_bin_observations_total",
    "Feature values seen, in disjoint bins (missing included); summable over replicas.",
    ["model", "version", "feature", "bin"],
    registry=REGISTRY,
)
BIN_REFERENCE = Gauge(
    "sidecar_feature_bin_reference_ratio",
    "Share of the reference in each bin.",
    ["model", "version", "feature", "bin"],
    registry=REGISTRY,
)
REFERENCE_OBSERVATIONS = Gauge(
    "sidecar_feature_reference_observations",
    "Size of the reference.",
    ["model", "version", "feature"],
    registry=REGISTRY,
)
MODEL_INFO = Gauge("sidecar_model_info", "Models running.", ["model", "version", "digest", "arm"], registry=REGISTRY)
LOGGED_ERRORS = Counter(
    "sidecar_unexpected_errors_total",
    "Errors nobody expected, by where they were caught.",
    ["place"],
    registry=REGISTRY,
)


# Looking a child up by its labels costs as much as counting with it; there are few, because label sets are closed.
# A gauge's may be removed.
for _metric in [m for m in globals().values() if isinstance(m, Counter | Histogram)]:
    vars(_metric)["labels"] = functools.lru_cache(maxsize=4096)(_metric.labels)


def exposition() -> bytes:
    """The registry in the Prometheus text format."""
    return generate_latest(REGISTRY)
