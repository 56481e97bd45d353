"""Which trial that was ended early another one takes up again."""

import sqlalchemy as sa
from alembic import op

revision = "v0005"
down_revision = "v0004"


def upgrade() -> None:
    op.add_column("condensery_trial", sa.Column("continues", sa.Integer(), nullable=True))
