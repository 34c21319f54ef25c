"""Keys that are taken and retired while servers run; versions of resources sealed, as some servers make them unique."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Versions that were heard in the open are dropped: what is read back is then taken as it is."""
    op.add_column("lease", sa.Column("sealing", sa.Integer(), nullable=True))
    op.add_column("lease", sa.Column("sealing_since", sa.Float(), nullable=True))
    op.add_column("ring", sa.Column("retired_at", sa.Float(), nullable=True))
    op.drop_column("event", "version")
    op.add_column("event", sa.Column("version", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Back to one ring for good."""
    op.drop_column("event", "version")
    op.add_column("event", sa.Column("version", sa.Text(), nullable=True))
    op.drop_column("ring", "retired_at")
    op.drop_column("lease", "sealing_since")
    op.drop_column("lease", "sealing")
