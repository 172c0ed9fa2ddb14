"""What fair invitations, replays and digests need"""

from alembic import op
import sqlalchemy as sa

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('run', sa.Column('replay_id', sa.String(length=36), nullable=False, server_default=''))
    op.add_column('run', sa.Column('replay_of', sa.String(length=36), nullable=True))
    op.add_column('notification', sa.Column('digest', sa.Boolean(), nullable=False, server_default=sa.text('false')))
    queued, invited = sa.text("state = 'queued'"), sa.text('invited_at_ms IS NOT NULL')
    op.create_index('run_waiting', 'run', ['owner', 'runtime', 'handler_id', 'queued_at_ms', 'id'],
                    sqlite_where=queued, postgresql_where=queued)
    op.create_index('run_invited', 'run', ['owner', 'invited_at_ms'], sqlite_where=invited, postgresql_where=invited)
    op.create_index('event_received', 'event', ['received_at_ms'])
    op.create_table('redriven',
    sa.Column('number', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.Column('by', sa.String(length=200), nullable=False),
    sa.PrimaryKeyConstraint('number')
    )
    op.create_index('notification_recent', 'notification', ['recipient', 'kind', 'created_at_ms'])


def downgrade() -> None:
    op.drop_table('redriven')
    op.drop_index('notification_recent', 'notification')
    op.drop_index('event_received', 'event')
    op.drop_index('run_invited', 'run')
    op.drop_index('run_waiting', 'run')
    op.drop_column('notification', 'digest')
    op.drop_column('run', 'replay_of')
    op.drop_column('run', 'replay_id')
