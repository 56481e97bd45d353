"""What a trial that was ended early was expected to end with: samplers learn from it."""

import sqlalchemy as sa
from alembic import op

revision = "v0002"
down_revision = "v0001"


def upgrade() -> None:
    op.add_column("condensery_trial", sa.Column("expected_top1", sa.Float(), nullable=True))
