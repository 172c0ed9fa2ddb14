"""Who did what to whose"""

from alembic import op
import sqlalchemy as sa

revision = '0030'
down_revision = '0022'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('audit',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.Column('who', sa.String(length=200), nullable=False),
    sa.Column('role', sa.String(length=20), nullable=False),
    sa.Column('peer', sa.String(length=200), nullable=False),
    sa.Column('act', sa.String(length=20), nullable=False),
    sa.Column('kind', sa.String(length=20), nullable=False),
    sa.Column('thing', sa.String(length=200), nullable=False),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sqlite_autoincrement=True
    )
    op.create_index('audit_at', 'audit', ['at_ms'])
    op.create_index('audit_thing', 'audit', ['kind', 'thing', 'at_ms'])
    op.create_index('audit_who', 'audit', ['who', 'at_ms'])


def downgrade() -> None:
    op.drop_table('audit')
