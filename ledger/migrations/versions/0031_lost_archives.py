"""How often a worker was lost on an archive"""

from alembic import op
import sqlalchemy as sa

revision = '0031'
down_revision = '0030'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('archive', sa.Column('lost', sa.Integer(), nullable=False, server_default='0'))


def downgrade() -> None:
    op.drop_column('archive', 'lost')
