"""An index for a trial's latencies: without it each price recorded looked at all of them."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_index("condensery_latency_trial", "condensery_latency", ["trial_id", "target"], unique=False)
