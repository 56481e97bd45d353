"""What files in other precisions say of the images, and what running them takes beside time."""

import sqlalchemy as sa
from alembic import op

revision = "v0012"
down_revision = "v0011"


def upgrade() -> None:
    for name in ("peak_memory_mb", "energy_mj"):
        op.add_column("condensery_point", sa.Column(name, sa.Float(), nullable=True))
    op.create_table(
        "condensery_file_predictions",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("model_hash", sa.String(length=64), nullable=False),
        sa.Column("split", sa.String(length=12), nullable=False),
        sa.Column("precision", sa.String(length=12), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["condensery_trial.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "model_hash", "split"),
    )
