"""When a user took back a config that no trial had taken up."""

import sqlalchemy as sa
from alembic import op

revision = "v0007"
down_revision = "v0006"


def upgrade() -> None:
    op.add_column("condensery_request", sa.Column("withdrawn_at", sa.Float(), nullable=True))
