"""The first schema. Identified columns are ciphertext from the start."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

EventNumber = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "assessment",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("identity", sa.LargeBinary(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("patient_key", sa.LargeBinary(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("model_digest", sa.Text(), nullable=False),
        sa.Column("policy_digest", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("consent", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("at_least", sa.Float(), nullable=True),
        sa.Column("risk", sa.Text(), nullable=True),
        sa.Column("urgent", sa.Integer(), nullable=False),
        sa.Column("vector", sa.Text(), nullable=False),
        sa.Column("contributions", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("assessed_at", sa.Float(), nullable=False),
        sa.Column("occurred_at", sa.Float(), nullable=False),
        sa.Column("valid_until", sa.Float(), nullable=False),
        sa.Column("latest", sa.Integer(), nullable=False),
        sa.Column("review", sa.Text(), nullable=True),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("identity", "revision"),
    )
    op.create_index(
        "assessment_for_review",
        "assessment",
        ["id"],
        unique=False,
        sqlite_where=sa.text("review IS NOT NULL"),
        postgresql_where=sa.text("review IS NOT NULL"),
    )
    op.create_index("assessment_of_patient", "assessment", ["patient_key", "model", "occurred_at"], unique=False)
    op.create_index(
        "assessment_valid",
        "assessment",
        ["valid_until", "id"],
        unique=False,
        sqlite_where=sa.text("latest = 1"),
        postgresql_where=sa.text("latest = 1"),
    )
    op.create_table(
        "basis",
        sa.Column("assessment_id", sa.Text(), nullable=False),
        sa.Column("resource_key", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("assessment_id", "resource_key"),
    )
    op.create_index("basis_resource", "basis", ["resource_key"], unique=False)
    op.create_table(
        "cause",
        sa.Column("event_id", EventNumber, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("patient_key", sa.LargeBinary(), nullable=False),
        sa.Column("assessment_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("event_id", "model", "patient_key"),
    )
    op.create_index(
        "cause_open",
        "cause",
        ["patient_key", "model"],
        unique=False,
        sqlite_where=sa.text("assessment_id IS NULL"),
        postgresql_where=sa.text("assessment_id IS NULL"),
    )
    op.create_table(
        "delivery",
        sa.Column("assessment_id", sa.Text(), nullable=False),
        sa.Column("identity", sa.LargeBinary(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("heard_at", sa.Float(), nullable=False),
        sa.Column("queued_at", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Float(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("settled_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("assessment_id"),
    )
    op.create_index("delivery_identity", "delivery", ["identity"], unique=False)
    op.create_index(
        "delivery_open",
        "delivery",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "device",
        sa.Column("model_digest", sa.Text(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model_digest"),
    )
    op.create_table(
        "effect",
        sa.Column("identity", sa.LargeBinary(), nullable=False),
        sa.Column("risk_assessment", sa.LargeBinary(), nullable=True),
        sa.Column("observation", sa.LargeBinary(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("written_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("identity"),
    )
    op.create_table(
        "event",
        sa.Column("id", EventNumber, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("focus_type", sa.Text(), nullable=True),
        sa.Column("focus", sa.LargeBinary(), nullable=True),
        sa.Column("focus_key", sa.LargeBinary(), nullable=True),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("dedupe_key", sa.LargeBinary(), nullable=True),
        sa.Column("merge_key", sa.LargeBinary(), nullable=True),
        sa.Column("patient_key", sa.LargeBinary(), nullable=True),
        sa.Column("heard_at", sa.Float(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("due_at", sa.Float(), server_default="0", nullable=False),
        sa.Column("claim", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Float(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("dedupe_key"),
        sa.UniqueConstraint("merge_key"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "event_buried",
        "event",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'buried'"),
        postgresql_where=sa.text("state = 'buried'"),
    )
    op.create_index(
        "event_done",
        "event",
        ["done_at"],
        unique=False,
        sqlite_where=sa.text("done_at IS NOT NULL"),
        postgresql_where=sa.text("done_at IS NOT NULL"),
    )
    op.create_index(
        "event_open",
        "event",
        ["due_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "event_waiting",
        "event",
        ["heard_at"],
        unique=False,
        sqlite_where=sa.text("state IN ('pending', 'routed')"),
        postgresql_where=sa.text("state IN ('pending', 'routed')"),
    )
    op.create_table(
        "seen",
        sa.Column("dedupe_key", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("dedupe_key"),
    )
    op.create_index("seen_at", "seen", ["seen_at"], unique=False)
    op.create_table(
        "subscription",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("watermark", sa.Text(), nullable=True),
        sa.Column("checked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("source"),
    )
    op.create_table(
        "work",
        sa.Column("patient_key", sa.LargeBinary(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("patient", sa.LargeBinary(), nullable=False),
        sa.Column("first_heard_at", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("last_event_id", EventNumber, nullable=False),
        sa.Column("claimed_event_id", EventNumber, server_default="0", nullable=False),
        sa.Column("claim", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Float(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("patient_key", "model"),
    )
    op.create_index("work_due", "work", ["due_at"], unique=False)
    # ### end Alembic commands ###
