"""Servers that differ are told from each other: by their key ring, and by what they run."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The table `ring`, and what runs in the process of a lease."""
    op.create_table(
        "ring",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column("lease", sa.Column("runs", sa.Text(), nullable=True))
    op.add_column("lease", sa.Column("since", sa.Float(), nullable=True))


def downgrade() -> None:
    """Back to servers that are taken for equal."""
    for name in ("since", "runs"):
        op.drop_column("lease", name)
    op.drop_table("ring")
