"""The commands `pulsewatch metabase`: connection, questions and dashboards in a Metabase."""

import contextlib
import sys
from collections.abc import Iterator

import click

from pulsewatch.settings import get_settings

DRIFT = 2


def _say(line: str) -> None:
    click.echo(line, err=True)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    from pulsewatch.metabase.rest import MetabaseError
    from pulsewatch.metabase.specs import SpecError

    try:
        yield
    except (MetabaseError, SpecError) as error:
        raise click.ClickException(str(error)) from error


timeout = click.option(
    "--timeout",
    type=click.IntRange(1, 3600),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for Metabase to start, and for it to read the database.",
)


@click.group()
def metabase() -> None:
    """Connect a Metabase to the database, and fill it with questions and dashboards.

    PULSEWATCH_METABASE_URL and the settings beside it say which one; docs/metabase.md tells the whole way.
    """


@metabase.command("plan")
@timeout
def metabase_plan(timeout: int) -> None:
    """Show what `apply` would change. Ends with code 2 if that is anything, 0 if it is nothing."""
    from pulsewatch.metabase import provision

    with _one_line_errors():
        access = provision.access_of(get_settings(), timeout)
        changes = provision.plan(access, provision.load_specs(), _say)
    for line in changes:
        click.echo(line)
    if changes:
        sys.exit(DRIFT)
    _say("nothing to change")


@metabase.command("apply")
@click.option("--force", is_flag=True, help="Write what seems to be right already, too.")
@timeout
def metabase_apply(force: bool, timeout: int) -> None:
    """Connect the database; make or update names, questions and dashboards. It may be repeated.

    What people have made is left alone.
    """
    from pulsewatch.metabase import provision

    with _one_line_errors():
        access = provision.access_of(get_settings(), timeout)
        changes = provision.apply(access, provision.load_specs(), _say, is_forced=force)
    count = len(changes)
    _say(f"{count} {'change' if count == 1 else 'changes'}" if changes else "nothing to change")


@metabase.command("check")
@timeout
def metabase_check(timeout: int) -> None:
    """Ask every question once. Ends with code 1 if one fails."""
    from pulsewatch.metabase import provision

    with _one_line_errors():
        access = provision.access_of(get_settings(), timeout)
        outcomes = provision.check(access, provision.load_specs(), _say)
    for outcome in outcomes:
        click.echo(f"{'ok' if outcome.trouble is None else 'failed'}\t{outcome.name}\t{outcome.trouble or ''}".rstrip())
    if any(outcome.trouble is not None for outcome in outcomes):
        sys.exit(1)
