"""Devices, their jobs and results; which target a latency is of, and whether it was extrapolated."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("condensery_latency") as batch:
        batch.add_column(sa.Column("target", sa.String(length=200), nullable=False, server_default="host"))
        batch.add_column(sa.Column("extrapolates", sa.Boolean(), nullable=False, server_default=sa.false()))

    op.create_table(
        "condensery_device",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("queue", sa.String(length=100), nullable=False),
        sa.Column("profile", sa.String(length=1000), nullable=True),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("added_at", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("instance", sa.String(length=32), nullable=True),
        sa.Column("facts", sa.Text(), nullable=True),
        sa.Column("conditions", sa.Text(), nullable=True),
        sa.Column("enrolled_at", sa.Float(), nullable=True),
        sa.Column("last_seen_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index("condensery_device_queue", "condensery_device", ["queue"], unique=False)
    op.create_table(
        "condensery_device_fit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=200), nullable=False),
        sa.Column("runtime", sa.String(length=40), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("networks", sa.Integer(), nullable=False),
        sa.Column("median_error", sa.Float(), nullable=False),
        sa.Column("p90_error", sa.Float(), nullable=False),
        sa.Column("max_error", sa.Float(), nullable=False),
        sa.Column("coverage_95", sa.Float(), nullable=False),
        sa.Column("spearman", sa.Float(), nullable=True),
        sa.Column("macs_spearman", sa.Float(), nullable=True),
        sa.Column("fitted_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "condensery_device_job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("queue", sa.String(length=100), nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("open_identity", sa.String(length=64), nullable=True),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("anchor_sha256", sa.String(length=64), nullable=True),
        sa.Column("mode", sa.String(length=12), nullable=False),
        sa.Column("runtime", sa.String(length=40), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("precision", sa.String(length=12), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("policy_label", sa.String(length=12), nullable=False),
        sa.Column("batch", sa.String(length=64), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("macs", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("troubles", sa.Integer(), nullable=False),
        sa.Column("quarantines", sa.Integer(), nullable=False),
        sa.Column("runtime_version", sa.String(length=40), nullable=True),
        sa.Column("submitted_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("open_identity"),
    )
    op.create_index("condensery_device_job_identity", "condensery_device_job", ["identity"], unique=False)
    op.create_index(
        "condensery_device_job_next", "condensery_device_job", ["queue", "state", "priority", "id"], unique=False
    )
    op.create_table(
        "condensery_device_model",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "condensery_reference_latency",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("device", sa.String(length=200), nullable=False),
        sa.Column("runtime", sa.String(length=40), nullable=False),
        sa.Column("runtime_version", sa.String(length=40), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("policy", sa.String(length=12), nullable=False),
        sa.Column("median_ms", sa.Float(), nullable=False),
        sa.Column("interval_low_ms", sa.Float(), nullable=False),
        sa.Column("interval_high_ms", sa.Float(), nullable=False),
        sa.Column("steady", sa.Boolean(), nullable=False),
        sa.Column("conditions", sa.Text(), nullable=False),
        sa.Column("measured_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "condensery_device_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["condensery_device_job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("condensery_device_event_job", "condensery_device_event", ["job_id"], unique=False)
    op.create_table(
        "condensery_device_lease",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("instance", sa.String(length=32), nullable=False),
        sa.Column("leased_at", sa.Float(), nullable=False),
        sa.Column("heartbeat_at", sa.Float(), nullable=False),
        sa.Column("doing", sa.String(length=12), nullable=False),
        sa.Column("outcome", sa.String(length=12), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["condensery_device.id"],
        ),
        sa.ForeignKeyConstraint(["job_id"], ["condensery_device_job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "attempt"),
    )
    op.create_index("condensery_device_lease_device", "condensery_device_lease", ["device_id", "outcome"], unique=False)
    op.create_table(
        "condensery_device_result",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("anchor_ms", sa.Float(), nullable=True),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["condensery_device.id"],
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt"],
            ["condensery_device_lease.job_id", "condensery_device_lease.attempt"],
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt"),
    )
    op.create_index(
        "condensery_device_result_device", "condensery_device_result", ["device_id", "verdict"], unique=False
    )
