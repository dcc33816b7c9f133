"""What Metabase shall hold, read from metabase/specs and from the comments in sql/analytics. Nothing here knows ids."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

COMMENT = re.compile(r"^comment on (?:view|column) analytics\.([a-z0-9_.]+) is\s+'((?:[^']|'')*)';", re.MULTILINE)
KEY = r"^[a-z][a-z0-9_]*$"
# A tag in the text of a native question.
TAG = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class SpecError(Exception):
    """The specs contradict themselves. The message names the file or the question."""


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())


Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
Key = Annotated[str, Field(pattern=KEY)]


class Table(Spec):
    """An object of the schema analytics."""

    title: Line
    key: str | None = None
    big: bool = False


class Column(Spec):
    """What a column of this name means, in whichever object."""

    title: Line | None = None
    target: str | None = None
    type: str | None = None
    values: Literal["list", "search", "none"] | None = None
    detail: bool = False


class Condition(Spec):
    """A condition on a column. `last` counts back from now; `current` takes the unit that is going on, too."""

    column: str
    equals: bool | str | int | None = None
    above: float | None = None
    in_: list[str] | None = Field(None, alias="in")
    last: int | None = Field(None, ge=1)
    unit: Literal["hour", "day"] | None = None
    current: bool = True

    @model_validator(mode="after")
    def says_one_thing(self) -> Self:
        said = [value for value in (self.equals, self.above, self.in_, self.last) if value is not None]
        if len(said) != 1 or (self.last is None) != (self.unit is None):
            msg = f"a condition on {self.column} must say one of equals, above, in, and last with its unit"
            raise ValueError(msg)
        return self


class Aggregate(Spec):
    """A number over rows: of columns that hold numbers already. A share is sum / sum."""

    title: Line
    count: Literal[True] | None = None
    sum: str | None = None
    max: str | None = None
    mean: str | None = None
    median: str | None = None
    share: tuple[str, str] | None = None
    colour: str | None = None

    @model_validator(mode="after")
    def is_one_number(self) -> Self:
        numbers = (self.count, self.sum, self.max, self.mean, self.median, self.share)
        if len([value for value in numbers if value is not None]) != 1:
            msg = f"the number '{self.title}' must be one of count, sum, max, mean, median and share"
            raise ValueError(msg)
        return self


class Variable(Spec):
    """A text that a native question takes."""

    title: Line


class Question(Spec):
    """A question, or a metric. It names either a table, with what to show of it, or SQL."""

    key: Key
    type: Literal["question", "metric"] = "question"
    name: Line
    description: Line
    display: Literal["line", "bar", "row", "table", "scalar"]
    table: str | None = None
    where: list[Condition] = []
    by: list[str] = []
    numbers: dict[str, Aggregate] = {}
    columns: list[str] = []
    order: list[str] = []
    limit: int | None = Field(None, ge=1, le=2000)
    native: str | None = None
    variables: dict[str, Variable] = {}
    dimensions: list[str] = []
    measures: list[str] = []
    formats: dict[str, Literal["percent", "seconds", "times", "link"]] = {}
    stacked: bool = False
    # Of series that come from a column it groups by, by its values.
    colours: dict[str, str] = {}

    @model_validator(mode="after")
    def is_of_one_kind(self) -> Self:
        if (self.table is None) == (self.native is None):
            msg = f"{self.key} must name either a table or SQL"
            raise ValueError(msg)
        if self.table is not None and bool(self.numbers) == bool(self.columns):
            msg = f"{self.key} must show either numbers or columns"
            raise ValueError(msg)
        if self.type == "metric" and (self.table is None or len(self.numbers) != 1):
            msg = f"{self.key} is a metric, which is one number over a table"
            raise ValueError(msg)
        if self.native is not None and set(TAG.findall(self.native)) != set(self.variables):
            msg = f"{self.key} must define the variables that its SQL uses, and no others"
            raise ValueError(msg)
        return self

    def dimension_columns(self) -> list[str]:
        """The columns it groups by; a unit such as .day is cut off."""
        return [column.partition(".")[0] for column in self.by]

    def result_columns(self) -> list[str]:
        """The names of the columns of its answer, where it is no SQL."""
        return [*self.dimension_columns(), *self.numbers] or self.columns


class Filter(Spec):
    """A filter of a dashboard; `question` and `column` say where the values that it offers come from."""

    key: Key
    title: Line
    type: Literal["date/all-options", "string/="]
    default: str | None = None
    question: str | None = None
    column: str | None = None
    single: bool = False


class Card(Spec):
    """A place on a dashboard: a question, or a heading."""

    question: str | None = None
    heading: Line | None = None
    at: tuple[int, int]
    size: tuple[int, int]
    filters: dict[str, str] = {}

    @model_validator(mode="after")
    def is_one_thing(self) -> Self:
        if (self.question is None) == (self.heading is None):
            msg = "a card is either a question or a heading"
            raise ValueError(msg)
        return self


class Dashboard(Spec):
    key: Key
    name: Line
    description: Line
    homepage: bool = False
    filters: list[Filter] = []
    cards: list[Card]


class _Questions(Spec):
    questions: list[Question]


class _Tables(Spec):
    tables: dict[str, Table]
    columns: dict[str, Column]


class _Dashboards(Spec):
    dashboards: list[Dashboard]


class Specs(Spec):
    """Everything together. `descriptions` holds comments by `object` and by `object.column`, in their order in SQL."""

    tables: dict[str, Table]
    columns: dict[str, Column]
    questions: list[Question]
    dashboards: list[Dashboard]
    descriptions: dict[str, str]

    @model_validator(mode="after")
    def names_fit_together(self) -> Self:
        for fault in self._faults():
            raise ValueError(fault)
        return self

    def question(self, key: str) -> Question:
        return next(question for question in self.questions if question.key == key)

    def keys(self) -> set[str]:
        """By which our questions and dashboards are known."""
        return {question.key for question in self.questions} | {dashboard.key for dashboard in self.dashboards}

    def views(self) -> dict[str, list[str]]:
        """The views of the schema analytics, and the columns of each."""
        found: dict[str, list[str]] = {}
        for name in self.descriptions:
            view, _, column = name.partition(".")
            if column:
                found.setdefault(view, []).append(column)
        return found

    def _faults(self) -> Iterator[str]:
        views = self.views()
        keys = [question.key for question in self.questions] + [dashboard.key for dashboard in self.dashboards]
        yield from (f"two things have the key {key}" for key in set(keys) if keys.count(key) > 1)
        yield from (
            f"tables.yaml speaks of analytics.{name}, which is not there" for name in self.tables.keys() - views
        )
        for question in self.questions:
            if question.table is not None:
                if question.table not in views:
                    yield f"{question.key} reads analytics.{question.table}, which is not there"
                missing = set(_columns_of(question)) - set(views.get(question.table, []))
                yield from (f"{question.key} reads {question.table}.{name}, which is not there" for name in missing)
        questions = {question.key for question in self.questions}
        for dashboard in self.dashboards:
            wanted = [card.question for card in dashboard.cards] + [each.question for each in dashboard.filters]
            yield from (
                f"{dashboard.key} shows {key}, which is not there" for key in wanted if key not in {*questions, None}
            )


def _columns_of(question: Question) -> Iterator[str]:
    yield from (condition.column for condition in question.where)
    yield from question.dimension_columns()
    yield from question.columns
    for number in question.numbers.values():
        named = (number.sum, number.max, number.mean, number.median, *(number.share or ()))
        yield from (name for name in named if name is not None)
    yield from {name.removeprefix("-") for name in question.order} - question.numbers.keys()


def read_comments(folder: Path) -> dict[str, str]:
    """The comments of the views in these SQL files, by `object` and by `object.column`."""
    found = {}
    for path in sorted(folder.glob("*.sql")):
        for name, comment in COMMENT.findall(path.read_text(encoding="utf-8")):
            found[name] = _one_line(comment.replace("''", "'"))
    return found


def read_specs(folder: Path, objects: Path) -> Specs:
    """The specs in `folder`, over the objects whose SQL is in `objects`. Raises SpecError, which says what is wrong."""

    def read(name: str) -> Any:
        try:
            return yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            msg = f"{name}: {error}"
            raise SpecError(msg) from error

    try:
        tables = _Tables.model_validate(read("tables.yaml"))
        questions = [
            question
            for name in ("metrics.yaml", "questions.yaml")
            for question in _Questions.model_validate(read(name)).questions
        ]
        return Specs(
            tables=tables.tables,
            columns=tables.columns,
            questions=questions,
            dashboards=_Dashboards.model_validate(read("dashboards.yaml")).dashboards,
            descriptions=read_comments(objects),
        )
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        msg = f"metabase/specs: {where}: {fault['msg']}" if where else f"metabase/specs: {fault['msg']}"
        raise SpecError(msg) from error
