"""A p90 belongs to samples: none for estimated and predicted latencies."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("condensery_latency") as batch:
        batch.alter_column("p90_ms", existing_type=sa.Float(), nullable=True)
    op.execute("UPDATE condensery_latency SET p90_ms = NULL WHERE kind != 'measured'")
