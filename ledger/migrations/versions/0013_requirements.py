"""What a handler needs beyond its runtime"""

from alembic import op
import sqlalchemy as sa

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('handler_version', sa.Column('requirements', sa.Text(), nullable=False, server_default='[]'))


def downgrade() -> None:
    op.drop_column('handler_version', 'requirements')
