"""Indexes by time alone: kinds of failure of the fleet, its late and missed starts, and marks for the alert rules.

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-29
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = "pulsewatch"
SPAN_INDEX = "failing_span_began_at_idx"
SLOT_INDEX = "slot_late_idx"
MARK_INDEX = "alert_mark_marked_at_idx"


def upgrade() -> None:
    op.create_index(
        SPAN_INDEX,
        "failing_span",
        ["began_at", "client_id"],
        schema=SCHEMA,
        postgresql_include=["pipeline_id", "error_class", "failure_count"],
    )
    op.create_index(
        SLOT_INDEX,
        "slot",
        ["slot_at", "client_id"],
        schema=SCHEMA,
        postgresql_include=["pipeline_id", "status", "deadline_at", "run_id", "started_at"],
        postgresql_where=sa.text("status in ('late', 'missed')"),
    )
    op.create_index(MARK_INDEX, "alert_mark", ["marked_at"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_index(MARK_INDEX, table_name="alert_mark", schema=SCHEMA)
    op.drop_index(SLOT_INDEX, table_name="slot", schema=SCHEMA)
    op.drop_index(SPAN_INDEX, table_name="failing_span", schema=SCHEMA)
