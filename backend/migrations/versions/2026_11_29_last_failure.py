"""The state of a pipeline tells in which hour a run of it last failed: rules that measure failure rates go by it.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-29
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCHEMA = "pulsewatch"
INDEX = "pipeline_hour_failed_idx"

# A worker of before that goes on for a while leaves the hour as it is. What fails then is told by the last outcome;
# once that is a success again, the failure is missing from rates until the pipeline's next run, or until
# `pulsewatch rollup rebuild`.
WORK_OUT = """
update pulsewatch.pipeline_state as state
set last_failure_hour_at = (
    select hour.hour_at
    from pulsewatch.pipeline_hour as hour
    where hour.client_id = state.client_id
        and hour.pipeline_id = state.pipeline_id
        and hour.failed_count + hour.timed_out_count > 0
    order by hour.hour_at desc
    limit 1
)
"""


def upgrade() -> None:
    op.create_index(
        INDEX,
        "pipeline_hour",
        ["client_id", "pipeline_id", "hour_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("failed_count + timed_out_count > 0"),
    )
    comment = "Latest hour (UTC) in which any run failed or timed out."
    column = sa.Column("last_failure_hour_at", sa.DateTime(timezone=True), comment=comment)
    op.add_column("pipeline_state", column, schema=SCHEMA)
    op.execute(WORK_OUT)


def downgrade() -> None:
    op.drop_column("pipeline_state", "last_failure_hour_at", schema=SCHEMA)
    op.drop_index(INDEX, table_name="pipeline_hour", schema=SCHEMA)
