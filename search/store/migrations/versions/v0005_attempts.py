"""Attempts with their leases, a log of what went wrong; Optuna's number of a trial is known when it has ended."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("condensery_trial") as batch:
        batch.alter_column("optuna_trial_id", existing_type=sa.Integer(), nullable=True)
    op.create_table(
        "condensery_attempt",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("heartbeat_at", sa.Float(), nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=12), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["trial_id"], ["condensery_trial.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "attempt"),
    )
    op.create_index("condensery_attempt_open", "condensery_attempt", ["outcome", "trial_id"], unique=False)
    op.create_table(
        "condensery_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["condensery_study.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("condensery_event_study", "condensery_event", ["study_id", "id"], unique=False)
