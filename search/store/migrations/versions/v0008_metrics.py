"""What a network is worth beyond its top-1, what it predicted, and names that fit every objective of a study."""

import sqlalchemy as sa
from alembic import op

revision = "v0008"
down_revision = "v0007"


def upgrade() -> None:
    for name in ("balanced_accuracy", "macro_f1", "top5", "calibration_error"):
        op.add_column("condensery_trial", sa.Column(name, sa.Float(), nullable=True))
    for name in ("val_balanced_accuracy", "val_macro_f1"):
        op.add_column("condensery_curve", sa.Column(name, sa.Float(), nullable=True))
    op.execute("ALTER TABLE condensery_trial RENAME COLUMN expected_top1 TO expected_score")
    op.execute("ALTER TABLE condensery_proposal RENAME COLUMN top1 TO score")
    op.create_table(
        "condensery_predictions",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(length=12), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["condensery_trial.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "split"),
    )
