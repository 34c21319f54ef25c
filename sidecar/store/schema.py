"""The tables. What each column holds, and which of them hold ciphertext, is in `sidecar.store.inventory`.

Times are seconds since the epoch. `*_key` columns are keyed fingerprints. No payload body is stored anywhere.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()
EventNumber = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite's integers are as long as they need to be, and only an INTEGER can be its row id."""

event = Table(
    "event",
    metadata,
    Column("id", EventNumber, primary_key=True),
    Column("source", Text, nullable=False),
    Column("focus_type", Text),
    Column("focus", LargeBinary),
    Column("focus_key", LargeBinary),
    Column("version", Text),
    Column("dedupe_key", LargeBinary, unique=True),
    Column("merge_key", LargeBinary, unique=True),
    Column("patient_key", LargeBinary),
    Column("heard_at", Float, nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("reason", Text),
    Column("due_at", Float, nullable=False, server_default="0"),
    Column("claim", Text),
    Column("lease_until", Float, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("done_at", Float),
    sqlite_autoincrement=True,
)
Index(
    "event_open",
    event.c.due_at,
    event.c.id,
    sqlite_where=text("state = 'pending'"),
    postgresql_where=text("state = 'pending'"),
)
Index(
    "event_waiting",
    event.c.heard_at,
    sqlite_where=text("state IN ('pending', 'routed')"),
    postgresql_where=text("state IN ('pending', 'routed')"),
)
Index(
    "event_done",
    event.c.done_at,
    sqlite_where=text("done_at IS NOT NULL"),
    postgresql_where=text("done_at IS NOT NULL"),
)
Index(
    "event_buried",
    event.c.id,
    sqlite_where=text("state = 'buried'"),
    postgresql_where=text("state = 'buried'"),
)

seen = Table(
    "seen",
    metadata,
    Column("dedupe_key", LargeBinary, primary_key=True),
    Column("seen_at", Float, nullable=False),
)
Index("seen_at", seen.c.seen_at)

work = Table(
    "work",
    metadata,
    Column("patient_key", LargeBinary, nullable=False),
    Column("model", Text, nullable=False),
    Column("patient", LargeBinary, nullable=False),
    Column("first_heard_at", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("last_event_id", EventNumber, nullable=False),
    Column("claimed_event_id", EventNumber, nullable=False, server_default="0"),
    Column("claim", Text),
    Column("lease_until", Float, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("patient_key", "model"),
)
Index("work_due", work.c.due_at)

cause = Table(
    "cause",
    metadata,
    Column("event_id", EventNumber, nullable=False),
    Column("model", Text, nullable=False),
    Column("patient_key", LargeBinary, nullable=False),
    Column("assessment_id", Text),
    PrimaryKeyConstraint("event_id", "model", "patient_key"),
)
Index(
    "cause_open",
    cause.c.patient_key,
    cause.c.model,
    sqlite_where=text("assessment_id IS NULL"),
    postgresql_where=text("assessment_id IS NULL"),
)

assessment = Table(
    "assessment",
    metadata,
    Column("id", Text, primary_key=True),
    Column("identity", LargeBinary, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("patient_key", LargeBinary, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("model_digest", Text, nullable=False),
    Column("policy_digest", Text, nullable=False),
    Column("arm", Text, nullable=False),
    Column("consent", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("score", Float),
    Column("at_least", Float),
    Column("risk", Text),
    Column("urgent", Integer, nullable=False),
    Column("vector", Text, nullable=False),
    Column("contributions", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("assessed_at", Float, nullable=False),
    Column("occurred_at", Float, nullable=False),
    Column("valid_until", Float, nullable=False),
    Column("latest", Integer, nullable=False),
    Column("review", Text),
    Column("evidence", LargeBinary, nullable=False),
    UniqueConstraint("identity", "revision"),
)
Index("assessment_of_patient", assessment.c.patient_key, assessment.c.model, assessment.c.occurred_at)
Index(
    "assessment_valid",
    assessment.c.valid_until,
    assessment.c.id,
    sqlite_where=text("latest = 1"),
    postgresql_where=text("latest = 1"),
)
Index(
    "assessment_for_review",
    assessment.c.id,
    sqlite_where=text("review IS NOT NULL"),
    postgresql_where=text("review IS NOT NULL"),
)

basis = Table(
    "basis",
    metadata,
    Column("resource_key", LargeBinary, nullable=False),
    Column("assessment_id", Text, nullable=False),
    PrimaryKeyConstraint("resource_key", "assessment_id", name="basis_by_resource"),
    sqlite_with_rowid=False,
)

delivery = Table(
    "delivery",
    metadata,
    Column("assessment_id", Text, primary_key=True),
    Column("identity", LargeBinary, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default="queued"),
    Column("reason", Text),
    Column("heard_at", Float, nullable=False),
    Column("queued_at", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("claim", Text),
    Column("lease_until", Float, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("settled_at", Float),
    Column("patient_key", LargeBinary),
    Column("sending_until", Float, nullable=False, server_default="0"),
)
Index(
    "delivery_open",
    delivery.c.due_at,
    sqlite_where=text("state = 'queued'"),
    postgresql_where=text("state = 'queued'"),
)
Index("delivery_identity", delivery.c.identity)
Index(
    "delivery_of_patient",
    delivery.c.patient_key,
    delivery.c.queued_at,
    sqlite_where=text("state = 'queued'"),
    postgresql_where=text("state = 'queued'"),
)

effect = Table(
    "effect",
    metadata,
    Column("identity", LargeBinary, primary_key=True),
    Column("risk_assessment", LargeBinary),
    Column("observation", LargeBinary),
    Column("revision", Integer, nullable=False),
    Column("written_at", Float, nullable=False),
)

device = Table(
    "device",
    metadata,
    Column("model_digest", Text, primary_key=True),
    Column("remote_id", Text, nullable=False),
)

subscription = Table(
    "subscription",
    metadata,
    Column("source", Text, primary_key=True),
    Column("remote_id", Text),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("watermark", Text),
    Column("checked_at", Float),
    Column("secrets", Text),
    Column("renewed_at", Float),
    Column("ends_at", Float),
    Column("heard_at", Float),
    Column("asked_at", Float),
    Column("numbers", Text),
    Column("look_at", Float, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
)

notice = Table(
    "notice",
    metadata,
    Column("id", EventNumber, primary_key=True),
    Column("source", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("remote_id", Text),
    Column("since", BigInteger),
    Column("numbers", Text, nullable=False),
    Column("unnamed", Integer, nullable=False),
    Column("heard_at", Float, nullable=False),
    sqlite_autoincrement=True,
)

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Float, nullable=False),
    Column("runs", Text),
    Column("since", Float),
    Column("sealing", Integer),
    Column("sealing_since", Float),
)

ring = Table(
    "ring",
    metadata,
    Column("name", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("retired_at", Float),
)

model_version = Table(
    "model_version",
    metadata,
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("first_seen_at", Float, nullable=False),
    PrimaryKeyConstraint("name", "version"),
)

transition = Table(
    "transition",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("what", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text),
    Column("model_digest", Text),
    Column("percent", Float),
    Column("by_what", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("override_reason", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)
