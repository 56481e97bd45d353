"""Trained networks in other precisions than fp32: what their files are worth, and their latencies."""

import sqlalchemy as sa
from alembic import op

revision = "v0010"
down_revision = "v0009"


def upgrade() -> None:
    op.create_table(
        "condensery_point",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("precision", sa.String(length=12), nullable=False),
        sa.Column("top1", sa.Float(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("file_bytes", sa.Integer(), nullable=False),
        sa.Column("fine_tuned", sa.Boolean(), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("model_hash", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=200), nullable=False),
        sa.Column("cpu_model", sa.String(length=200), nullable=False),
        sa.Column("runtime", sa.String(length=40), nullable=False),
        sa.Column("runtime_version", sa.String(length=40), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("policy", sa.String(length=12), nullable=False),
        sa.Column("extrapolates", sa.Boolean(), nullable=False),
        sa.Column("median_ms", sa.Float(), nullable=False),
        sa.Column("p90_ms", sa.Float(), nullable=True),
        sa.Column("interval_low_ms", sa.Float(), nullable=False),
        sa.Column("interval_high_ms", sa.Float(), nullable=False),
        sa.Column("anchor_drift", sa.Float(), nullable=True),
        sa.Column("steady", sa.Boolean(), nullable=False),
        sa.Column("conditions", sa.Text(), nullable=False),
        sa.Column("measured_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["condensery_trial.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("condensery_point_trial", "condensery_point", ["trial_id", "target"])
