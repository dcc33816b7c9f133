"""How many examples Hypothesis tries of what is asked of a real server."""

from tests.conftest import VERSION


def examples(count: int) -> int:
    """So many on PostgreSQL 18; on another version a third, which shows that it does the same."""
    return count if VERSION == "18" else count // 3
