"""The shortlist: which trials users starred, and what they noted about them."""

import sqlalchemy as sa
from alembic import op

revision = "v0011"
down_revision = "v0010"


def upgrade() -> None:
    op.create_table(
        "condensery_note",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("starred", sa.Boolean(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["condensery_trial.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id"),
    )
