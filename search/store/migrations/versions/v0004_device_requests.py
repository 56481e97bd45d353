"""Who waits for a job, and since when nobody said so: a request has an owner, who renews it.

A job that was open before has no request: nobody waits for it in this version's way, and the next sweep ends it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "condensery_device_request",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=False),
        sa.Column("renewed_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["condensery_device_job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "owner"),
    )
    # No batch: on SQLite that makes the table anew, and dropping the old one would delete every lease and result of it.
    op.drop_column("condensery_device_job", "wanted")
