"""The trace that a run belongs to"""

from alembic import op
import sqlalchemy as sa

revision = '0021'
down_revision = '0020'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('run', sa.Column('traceparent', sa.String(length=55), nullable=False, server_default=''))


def downgrade() -> None:
    op.drop_column('run', 'traceparent')
