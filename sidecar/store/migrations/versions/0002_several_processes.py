"""Several processes on one database: leases, writes in their patient's order, room for rows that change often."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Rows that are claimed, extended and settled: room on the page keeps an update off the indexes, and vacuum comes early.
CHANGING = ("event", "work", "delivery", "lease", "cause")


def upgrade() -> None:
    """Add what several processes need."""
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column("delivery", sa.Column("patient_key", sa.LargeBinary(), nullable=True))
    op.execute(
        "UPDATE delivery SET patient_key = "
        "(SELECT patient_key FROM assessment WHERE assessment.id = delivery.assessment_id)"
    )
    op.create_index(
        "delivery_of_patient",
        "delivery",
        ["patient_key", "queued_at"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    if op.get_bind().dialect.name == "postgresql":
        for table in CHANGING:
            op.execute(
                f"ALTER TABLE {table} SET (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02, "
                "autovacuum_vacuum_cost_delay = 1)"
            )
