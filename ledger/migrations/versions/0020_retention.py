"""What was removed for its age, and what finds the old by their end"""

from alembic import op
import sqlalchemy as sa

revision = '0020'
down_revision = '0014'
branch_labels = None
depends_on = None

INDEXES = (
    ('run_ended', 'run', 'ended_at_ms IS NOT NULL AND texts_removed_at_ms IS NULL'),
    ('run_without_texts', 'run', 'texts_removed_at_ms IS NOT NULL'),
    ('notification_ended', 'notification', 'ended_at_ms IS NOT NULL'),
    ('archive_ended', 'archive', 'ended_at_ms IS NOT NULL'),
)


def upgrade() -> None:
    op.add_column('event', sa.Column('runs_removed', sa.Integer(), nullable=False, server_default='0'))
    op.add_column('run', sa.Column('texts_removed_at_ms', sa.BigInteger(), nullable=True))
    op.add_column('run', sa.Column('mail_removed', sa.Boolean(), nullable=False, server_default=sa.text('false')))
    op.create_table('tally',
    sa.Column('day_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('kind', sa.String(length=20), nullable=False),
    sa.Column('word', sa.String(length=20), nullable=False),
    sa.Column('count', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('day_ms', 'kind', 'word')
    )
    for name, table, where in INDEXES:
        op.create_index(name, table, ['ended_at_ms'], sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    for name, table, _ in reversed(INDEXES):
        op.drop_index(name, table)
    op.drop_table('tally')
    op.drop_column('run', 'mail_removed')
    op.drop_column('run', 'texts_removed_at_ms')
    op.drop_column('event', 'runs_removed')
