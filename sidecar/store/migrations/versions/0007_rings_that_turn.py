"""Keys that are taken and retired while servers run; versions that may be identifiers leave the inbox."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Counters are the only versions that stay, no plain hash of a result does; three columns, last: they lock."""
    op.execute("UPDATE event SET version = 'opaque' WHERE rtrim(version, '0123456789') <> '' OR length(version) > 9")
    op.execute(sa.text("UPDATE assessment SET content = :none").bindparams(sa.bindparam("none", b"", sa.LargeBinary())))
    op.add_column("lease", sa.Column("sealing", sa.Integer(), nullable=True))
    op.add_column("lease", sa.Column("sealing_since", sa.Float(), nullable=True))
    op.add_column("ring", sa.Column("retired_at", sa.Float(), nullable=True))


def downgrade() -> None:
    """Back to one ring for good."""
    op.drop_column("ring", "retired_at")
    op.drop_column("lease", "sealing_since")
    op.drop_column("lease", "sealing")
