"""Which pipelines marks are left of is told by a function, with a plan of its own.

Revision ID: 0007
Revises: 0006
Create Date: 2026-11-29
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Tables of marks are vacuumed every few seconds, and a statement that reads one is planned anew after that. For the
# one that looks at all rules that takes three times as long as to run it. In PL/pgSQL, or PostgreSQL would put the body
# into that statement; stable, so that it sees what that statement sees. `rows 100`: marks come and go, and the planner
# would take the room that they leave for marks; to make hash tables for a hundred thousand takes ten milliseconds.
UNSETTLED = """
create function pulsewatch.unsettled(known_at timestamptz)
returns table (client_id bigint, pipeline_id bigint)
language plpgsql stable rows 100
as $$
#variable_conflict use_column
begin
    return query
    select client_id, pipeline_id
    from pulsewatch.alert_mark
    where marked_at >= unsettled.known_at
    union
    select client_id, pipeline_id from pulsewatch.dirty;
end
$$
"""


def upgrade() -> None:
    op.execute(UNSETTLED)
    op.execute(
        "comment on function pulsewatch.unsettled(timestamptz) is"
        " 'Pipelines that are not worked out, or that marks since then are left of.'"
    )


def downgrade() -> None:
    op.execute("drop function pulsewatch.unsettled(timestamptz)")
