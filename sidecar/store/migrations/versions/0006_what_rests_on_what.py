"""`basis` as one tree by resource: what rests on a resource is asked for, what a result rests on is in its evidence."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Another key, and neither the version nor a second index."""
    op.rename_table("basis", "basis_before")
    op.create_table(
        "basis",
        sa.Column("resource_key", sa.LargeBinary(), nullable=False),
        sa.Column("assessment_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("resource_key", "assessment_id", name="basis_by_resource"),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO basis (resource_key, assessment_id) SELECT resource_key, assessment_id FROM basis_before")
    op.drop_table("basis_before")


def downgrade() -> None:
    """Back to two trees; the versions are in the evidence only."""
    op.rename_table("basis", "basis_after")
    op.create_table(
        "basis",
        sa.Column("assessment_id", sa.Text(), nullable=False),
        sa.Column("resource_key", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("assessment_id", "resource_key", name="basis_by_assessment"),
    )
    op.execute(
        "INSERT INTO basis (assessment_id, resource_key, version) "
        "SELECT assessment_id, resource_key, '' FROM basis_after"
    )
    op.drop_table("basis_after")
    op.create_index("basis_resource", "basis", ["resource_key"])
