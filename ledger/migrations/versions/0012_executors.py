"""Which executors there are, with how many slots; the queue found by the index that is made for it, not by state alone"""

from alembic import op
import sqlalchemy as sa

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('executor',
    sa.Column('boot_hash', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.Column('slots', sa.Integer(), nullable=False),
    sa.Column('runtimes', sa.Text(), nullable=False),
    sa.Column('seen_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('boot_hash')
    )
    op.drop_index('run_state', 'run')
    held = sa.text('lease_until_ms IS NOT NULL')
    op.create_index('run_held', 'run', ['lease_until_ms'], sqlite_where=held, postgresql_where=held)


def downgrade() -> None:
    op.drop_index('run_held', 'run')
    op.create_index('run_state', 'run', ['state', 'not_before_ms'])
    op.drop_table('executor')
