"""What running a network takes beside time, and which trial another one trains again on all images."""

import sqlalchemy as sa
from alembic import op

revision = "v0009"
down_revision = "v0008"


def upgrade() -> None:
    for name in ("peak_memory_mb", "energy_mj"):
        op.add_column("condensery_latency", sa.Column(name, sa.Float(), nullable=True))
    op.add_column("condensery_trial", sa.Column("retrains", sa.Integer(), nullable=True))
