"""Options of handlers, retries, refused keys, logs of runs that are going on, and runs by age"""

from alembic import op
import sqlalchemy as sa

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None

def options() -> list[sa.Column]:
    return [
        sa.Column('timeout_s', sa.Float(), nullable=False, server_default='0'),
        sa.Column('memory_bytes', sa.BigInteger(), nullable=False, server_default='0'),
        sa.Column('max_concurrency', sa.Integer(), nullable=False, server_default='0'),
        sa.Column('retries', sa.Integer(), nullable=False, server_default='0'),
        sa.Column('retry_delay_s', sa.Float(), nullable=False, server_default='0'),
        sa.Column('notify', sa.String(length=10), nullable=False, server_default='each'),
        sa.Column('description', sa.Text(), nullable=False, server_default=''),
    ]


def upgrade() -> None:
    for column in options():
        op.add_column('handler_version', column)
    op.add_column('handler', sa.Column('pause_reason', sa.String(length=200), nullable=False, server_default=''))
    op.add_column('run', sa.Column('retried', sa.Integer(), nullable=False, server_default='0'))
    op.add_column('credential', sa.Column('refused_at_ms', sa.BigInteger(), nullable=True))
    op.create_table('run_log',
    sa.Column('run_id', sa.String(length=36), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('at', sa.BigInteger(), nullable=False),
    sa.Column('until', sa.BigInteger(), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['run.id']),
    sa.PrimaryKeyConstraint('run_id', 'attempt', 'at')
    )
    op.create_index('run_newest', 'run', ['queued_at_ms', 'id'])
    op.create_index('run_of_owner', 'run', ['owner', 'queued_at_ms', 'id'])
    op.create_index('run_of_handler', 'run', ['handler_id', 'queued_at_ms', 'id'])


def downgrade() -> None:
    op.drop_index('run_of_handler', 'run')
    op.drop_index('run_of_owner', 'run')
    op.drop_index('run_newest', 'run')
    op.drop_table('run_log')
    op.drop_column('credential', 'refused_at_ms')
    op.drop_column('run', 'retried')
    op.drop_column('handler', 'pause_reason')
    for column in options():
        op.drop_column('handler_version', column.name)
