"""Handlers that wait to be loaded for their registration"""

from alembic import op
import sqlalchemy as sa

revision = '0022'
down_revision = '0021'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('load_check',
    sa.Column('id', sa.String(length=32), nullable=False),
    sa.Column('runtime', sa.String(length=100), nullable=False),
    sa.Column('hook', sa.String(length=200), nullable=False),
    sa.Column('blob', sa.LargeBinary(), nullable=False),
    sa.Column('requirements', sa.Text(), nullable=False),
    sa.Column('asked_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('taken', sa.Boolean(), nullable=False),
    sa.Column('verdict', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('id')
    )


def downgrade() -> None:
    op.drop_table('load_check')
