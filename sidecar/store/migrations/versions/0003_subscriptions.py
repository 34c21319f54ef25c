"""Subscriptions with event numbers, heartbeats, an end, and secrets that are rotated."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Columns of `subscription`, and the table `notice`."""
    for name, kind in (
        ("secrets", sa.Text()),
        ("renewed_at", sa.Float()),
        ("ends_at", sa.Float()),
        ("heard_at", sa.Float()),
        ("asked_at", sa.Float()),
        ("numbers", sa.Text()),
    ):
        op.add_column("subscription", sa.Column(name, kind, nullable=True))
    op.add_column("subscription", sa.Column("look_at", sa.Float(), server_default="0", nullable=False))
    op.add_column("subscription", sa.Column("failures", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "notice",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("since", sa.BigInteger(), nullable=True),
        sa.Column("numbers", sa.Text(), nullable=False),
        sa.Column("unnamed", sa.Integer(), nullable=False),
        sa.Column("heard_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Back to Subscriptions without numbers."""
    op.drop_table("notice")
    for name in ("failures", "look_at", "numbers", "asked_at", "heard_at", "ends_at", "renewed_at", "secrets"):
        op.drop_column("subscription", name)
