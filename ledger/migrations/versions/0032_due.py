"""The run that has been due for longest, by runtime, found at once"""

from alembic import op
import sqlalchemy as sa

revision = '0032'
down_revision = '0031'
branch_labels = None
depends_on = None


def upgrade() -> None:
    waiting = sa.text("state = 'queued'")
    op.create_index('run_due', 'run', ['runtime', 'not_before_ms'], sqlite_where=waiting, postgresql_where=waiting)


def downgrade() -> None:
    op.drop_index('run_due', 'run')
