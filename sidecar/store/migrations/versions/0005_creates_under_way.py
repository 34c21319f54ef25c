"""Until when a create of a write may be under way."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One column of `delivery`."""
    op.add_column("delivery", sa.Column("sending_until", sa.Float(), server_default="0", nullable=False))


def downgrade() -> None:
    """Back to creates that nobody remembers."""
    op.drop_column("delivery", "sending_until")
