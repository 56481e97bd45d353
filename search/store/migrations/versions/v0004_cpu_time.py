"""The CPU time of each timed run: it shows which runs were interrupted."""

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"


def upgrade() -> None:
    op.add_column("condensery_latency_samples", sa.Column("cpu_ms", sa.Text(), nullable=True))
