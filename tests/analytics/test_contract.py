"""What readers rely on: names, columns and types of the schema analytics, and a comment for each of them."""

from pathlib import Path

from sqlalchemy import Connection

from pulsewatch.migrate import data_folder
from tests.analytics.rows import read

CONTRACT = Path(__file__).with_name("contract.txt")

READABLE_TYPES = {
    "bigint", "boolean", "double precision", "integer", "smallint", "text", "timestamp with time zone", "uuid",
}  # fmt: skip

# A function's parameters come first, then the columns that it gives: another parameter is a broken promise too, because
# `create or replace` would make a second function beside the first, and calls would be ambiguous.
COLUMNS = """
    select class.relname || ' ' || attribute.attname || ' ' || format_type(attribute.atttypid, attribute.atttypmod)
    from pg_attribute as attribute
    join pg_class as class on class.oid = attribute.attrelid
    where class.relnamespace = 'analytics'::regnamespace and attribute.attnum > 0 and not attribute.attisdropped
    order by class.relname, attribute.attnum
"""
ARGUMENTS = """
    select
        routine.proname || case when argument.mode in ('i', 'b', 'v') then '() given ' else '() ' end
        || argument.name || ' ' || format_type(argument.type, null)
    from pg_proc as routine
    cross join lateral unnest(
        coalesce(routine.proallargtypes, routine.proargtypes::oid[]),
        coalesce(routine.proargmodes, array_fill('i'::"char", array[routine.pronargs::integer])),
        routine.proargnames
    ) with ordinality as argument (type, mode, name, place)
    where routine.pronamespace = 'analytics'::regnamespace
    order by routine.proname, argument.place
"""
RESULTS = """
    select proname || '() returns ' || format_type(prorettype, null)
    from pg_proc
    where pronamespace = 'analytics'::regnamespace and not proretset
    order by proname
"""


def found(connection: Connection) -> list[str]:
    return [line for query in (COLUMNS, ARGUMENTS, RESULTS) for (line,) in read(connection, query)]


def by_object(lines: list[str]) -> dict[str, list[str]]:
    objects: dict[str, list[str]] = {}
    for line in lines:
        name, _, column = line.partition(" ")
        objects.setdefault(name, []).append(column)
    return objects


def test_columns_are_only_ever_appended(connection: Connection) -> None:
    now, promised = by_object(found(connection)), by_object(CONTRACT.read_text().splitlines())
    broken = [
        f"{name}: promised {columns}, found {now.get(name)}"
        for name, columns in promised.items()
        if now.get(name, [])[: len(columns)] != columns
    ]
    assert broken == [], "readers rely on these columns: put new ones at the end, and make a new object for the rest"


def test_the_contract_lists_every_object_and_column(connection: Connection) -> None:
    lines = found(connection)
    missing = sorted(set(lines) - set(CONTRACT.read_text().splitlines()))
    assert missing == [], f"write the new columns into {CONTRACT.name}, whose content is then:\n" + "\n".join(lines)


def test_every_object_and_column_has_a_comment(connection: Connection) -> None:
    silent = read(
        connection,
        "select class.relname, attname from pg_attribute join pg_class as class on class.oid = attrelid"
        " where relnamespace = 'analytics'::regnamespace and attnum > 0"
        " and (coalesce(col_description(class.oid, attnum), '') = ''"
        " or coalesce(obj_description(class.oid, 'pg_class'), '') = '')"
        " union all select proname, '' from pg_proc where pronamespace = 'analytics'::regnamespace"
        " and coalesce(obj_description(oid, 'pg_proc'), '') = ''",
    )
    assert silent == []


def test_a_views_reader_sees_what_its_own_rights_allow(connection: Connection) -> None:
    views = read(
        connection,
        "select relname from pg_class where relnamespace = 'analytics'::regnamespace and relkind = 'v'"
        " and not coalesce('security_invoker=true' = any(reloptions), false)",
    )
    functions = read(
        connection, "select proname from pg_proc where pronamespace = 'analytics'::regnamespace and prosecdef"
    )
    assert (views, functions) == ([], [])


def test_every_type_is_one_that_dashboards_read(connection: Connection) -> None:
    lines = found(connection)
    given = {line.split(" ", 3)[-1] for line in lines if " given " in line}
    types = {line.split(" ", 2)[-1].removeprefix("returns ") for line in lines if " given " not in line}
    assert types <= READABLE_TYPES
    # No dashboard reads an array; what is passed to a function may be one.
    assert given <= READABLE_TYPES | {"text[]"}


def test_names_tell_units_and_are_not_taken_for_something_else(connection: Connection) -> None:
    columns = read(
        connection,
        "select class.relname, attname, format_type(atttypid, atttypmod) from pg_attribute"
        " join pg_class as class on class.oid = attrelid"
        " where relnamespace = 'analytics'::regnamespace and attnum > 0",
    )
    floats = [name for _, name, kind in columns if name.endswith(("_s", "_rate")) and kind != "double precision"]
    flags = [name for _, name, kind in columns if (kind == "boolean") != name.startswith("is_")]
    times = [
        name
        for _, name, kind in columns
        if kind != "boolean" and kind.startswith("timestamp") != name.endswith(("at", "_utc", "_since"))
    ]
    # Metabase takes these for a latitude and a longitude.
    places = [name for _, name, _ in columns if name.endswith(("_lat", "_lon", "_long"))]
    assert (floats, flags, times, places) == ([], [], [], [])


def test_the_readme_lists_every_object(connection: Connection) -> None:
    readme = (data_folder("sql") / "README.md").read_text()
    names = {line.split(" ")[0].removesuffix("()") for line in found(connection)}
    assert sorted(name for name in names if f"`{name}" not in readme and f"analytics.{name}" not in readme) == []
