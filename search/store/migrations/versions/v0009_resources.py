"""What running a network takes beside time."""

import sqlalchemy as sa
from alembic import op

revision = "v0009"
down_revision = "v0008"


def upgrade() -> None:
    for name in ("peak_memory_mb", "energy_mj"):
        op.add_column("condensery_latency", sa.Column(name, sa.Float(), nullable=True))
