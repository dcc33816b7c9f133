"""The documentation does what it says: its examples run, its links lead somewhere, its tables are complete."""

import ast
import gzip
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pulsewatch import catalog, rulebook
from pulsewatch.auth import Role
from pulsewatch.intake import WIRES, native
from pulsewatch.rules.matchers import Matchers
from pulsewatch.rules.spec import RuleSpec
from pulsewatch.settings import Settings
from tests.running import ROOT, request
from tests.serving import make_key, serve_here

pytestmark = [pytest.mark.any_postgresql, pytest.mark.unmeasured]
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "sql/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
INGESTION = ROOT / "docs/ingestion.md"
SUMMARIES = ROOT / "docs/summaries.md"
RETENTION = ROOT / "docs/retention.md"
ALERT_RULES = ROOT / "docs/alert-rules.md"
ALERTS = ROOT / "docs/alerts.md"
BACKTESTS = ROOT / "docs/backtests.md"
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def fences(path: Path, language: str) -> list[str]:
    """The code blocks of a page in this language."""
    return [code for found, code in FENCE.findall(path.read_text()) if found == language]


def table(path: Path, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without the two of its head."""
    section = path.read_text().partition(f"{heading}\n")[2]
    lines = re.search(r"(?:^\|.*\|\n)+", section, re.MULTILINE)
    assert lines is not None, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


# -- links and names --------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def tree_entries() -> Iterator[Path]:
    """The files and folders that the map of the tree names, by its indentation of two."""
    (tree,) = fences(README, "text")
    folders: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(r"\s{2,}", line.strip())[0].split()
        folders[depth:] = [names[0]]
        for name in names:
            yield ROOT.joinpath(*folders[:depth], name)


def test_the_map_of_the_tree_names_what_is_there() -> None:
    entries = list(tree_entries())
    assert len(entries) > 30
    assert [str(entry.relative_to(ROOT)) for entry in entries if not entry.exists()] == []


def test_the_map_of_the_tree_leaves_out_no_module() -> None:
    package = ROOT / "backend/pulsewatch"
    there = {path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    there -= {package / "__init__.py", package / "__main__.py"}
    assert there - set(tree_entries()) == set()


# -- tables -----------------------------------------------------------------------------------------------------------

# Where each of these takes its code from.
CODE_POSITION = {"Refusal": 0, "Refused": 0, "FieldFault": 0, "FieldError": 1, "Problem": 1}


def codes_in(tree: ast.AST) -> Iterator[str]:
    """The error codes that a module can give."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CODE_POSITION:
            position = CODE_POSITION[node.func.id]
            if len(node.args) > position:
                yield from _text(node.args[position])
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = target.id if isinstance(target, ast.Name) else ""
            value = node.value
            if name == "_CODES" and isinstance(value, ast.Dict):
                yield from (code for each in value.values for code in _text(each))
            elif name == "_CODES" and isinstance(value, ast.Tuple):
                yield from (code for pair in value.elts if isinstance(pair, ast.Tuple) for code in _text(pair.elts[1]))
            elif name == "_BY_FIELD" and isinstance(value, ast.Dict):
                yield from (
                    code for pair in value.values if isinstance(pair, ast.Tuple) for code in _text(pair.elts[0])
                )
            elif name == "_PIPELINE_REFUSALS" and isinstance(value, ast.Dict):
                yield from (code for each in value.keys if each is not None for code in _text(each))


def _text(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):  # _CODES.get(..., "wrong_type")
        yield from (code for argument in node.args[1:] for code in _text(argument))


def test_every_error_code_of_the_code_is_in_the_table_and_no_other() -> None:
    modules = (ROOT / "backend/pulsewatch").rglob("*.py")
    given = {code for module in modules for code in codes_in(ast.parse(module.read_text()))}
    # Picked apart before they are shown: a value that no field expects (unknown_status) or a form (invalid_url).
    given -= {"invalid_format"}
    told = [row[0].strip("`") for row in table(INGESTION, "## Error codes")]
    assert sorted(told) == sorted(given)


def test_the_codes_are_listed_in_the_order_of_the_alphabet() -> None:
    told = [row[0].strip("`") for row in table(INGESTION, "## Error codes")]
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("heading", "fields"),
    [
        ("### Run events", set(native.RunItem.__struct_fields__)),
        ("### Pipeline events", {"type", *native.PipelineHead.__struct_fields__, *catalog.PIPELINE_FIELDS}),
        ("### Client events", {"type", *native.ClientHead.__struct_fields__, *catalog.CLIENT_FIELDS}),
    ],
)
def test_each_field_of_an_event_is_explained(heading: str, fields: set[str]) -> None:
    assert {row[0].strip("`") for row in table(INGESTION, heading)} == fields


def test_each_wire_is_named_in_the_readme() -> None:
    text = README.read_text()
    assert [path for wire in WIRES for path in wire.paths if path not in text] == []


def test_every_setting_has_its_default_in_the_example_file() -> None:
    named = set(re.findall(r"PULSEWATCH_\w+", INGESTION.read_text() + README.read_text()))
    known = set(re.findall(r"PULSEWATCH_\w+", (ROOT / ".env.example").read_text()))
    assert named - known == set()


# -- examples ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def url(database: str) -> Iterator[str]:
    """The address of a server."""
    with serve_here(database) as address:
        yield address


@pytest.fixture
def key(database: str) -> str:
    _, header = make_key(database, Role.WRITE)
    return header["Authorization"].removeprefix("Bearer ")


def fresh(example: str) -> str:
    """The example as if it had been written yesterday: one day its times would be refused as too old."""
    return re.sub(r"20\d\d-\d\d-\d\d(?=T)", f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}", example)


def answer(url: str, key: str, body: str | bytes, *headers: str) -> tuple[int, Any]:
    """Status and JSON of POST /v1/events, asked by curl as a person would."""
    named = [word for header in (f"Authorization: Bearer {key}", *headers) for word in ("-H", header)]
    words = ["curl", "-sS", "-w", "\n%{http_code}", f"{url}/v1/events", *named, "--data-binary", "@-"]
    sent = body.encode() if isinstance(body, str) else body
    done = subprocess.run(words, input=sent, check=True, capture_output=True)
    said, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(said)


def shell(script: str, url: str, key: str) -> list[Any]:
    """What the commands of an example print, one JSON text a command."""
    script = script.replace("http://127.0.0.1:8080", url)
    given = f"export KEY={shlex.quote(key)}\n"
    done = subprocess.run(
        ("bash", "-euo", "pipefail", "-c", given + fresh(script)), check=True, capture_output=True, text=True
    )
    return list(json_texts(done.stdout))


def json_texts(text: str) -> Iterator[Any]:
    """The JSON texts that stand one after the other."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


def commands(path: Path) -> list[str]:
    """The shell examples that call the api."""
    return [example for example in fences(path, "sh") if "curl" in example]


def test_the_first_event_of_the_readme_is_taken_and_read_back(url: str, key: str) -> None:
    (example,) = commands(README)
    taken, page = shell(example, url, key)
    assert taken == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert [run["status"] for run in page["items"]] == ["succeeded"]


def test_the_shell_examples_of_ingestion_are_taken(url: str, key: str) -> None:
    examples = commands(INGESTION)
    assert examples
    for example in examples:
        for said in shell(example, url, key):
            assert (said["accepted"] + said["duplicates"] > 0, said["rejected"]) == (True, [])


def test_the_examples_of_summaries_and_annotations_are_answered(url: str, key: str) -> None:
    """After the first event of the README, as a reader would come to them."""
    shell(commands(README)[0], url, key)
    fleet, client, pipeline, annotation, listed = (
        said for example in commands(SUMMARIES) for said in shell(example, url, key)
    )
    assert [row["client"] for row in fleet["clients"]] == ["acme"]
    assert (fleet["series"], len(client["series"])) == ([], 24)
    assert pipeline["totals"].keys() == client["totals"].keys()
    assert listed["items"] == [annotation]


def test_the_example_of_alert_rules_goes_from_a_try_to_a_rule_that_tells(url: str, key: str) -> None:
    """After the first event of the README, as a reader would come to it."""
    shell(commands(README)[0], url, key)
    (example,) = commands(ALERT_RULES)
    checked, preview, made, telling, versions = shell(example, url, key)
    assert checked["target_count"] == 1
    assert [target["pipeline"] for target in preview["items"]] == ["nightly-load"]
    assert (made["version"], made["spec"], telling["spec"]["is_dry_run"]) == (1, checked["spec"], False)
    assert [item["comment"] for item in versions["items"]] == ["it is right", "first try"]


def test_the_examples_of_backtests_and_explanations_are_answered(url: str, key: str) -> None:
    """After the first event of the README, as a reader would come to them."""
    shell(commands(README)[0], url, key)
    path = f"/v1/alert-rules/{rulebook.BUILTIN_KEY}"
    assert request(url, "PUT", path, key=key, body=rulebook.BUILTIN)[0] == 201
    (example,) = commands(BACKTESTS)
    tried, explained = shell(example, url, key)
    assert (tried["target_count"], tried["alert_count"], tried["compared_with"]["alert_count"]) == (1, 0, 0)
    assert tried["only_this"] == tried["only_other"] == {"alert_count": 0, "alerts": []}
    assert (explained["state"], explained["rule"]["kind"]) == ("ok", "ingestion")


def test_the_examples_of_silences_are_answered(url: str, key: str) -> None:
    (example,) = commands(ALERTS)
    preview, made, listed = shell(example, url, key)
    assert preview == {"count": 0, "items": []}
    assert listed["items"] == [made]


def test_each_matcher_of_a_silence_is_explained() -> None:
    told = [name.strip("`") for row in table(ALERTS, "the newest hundred.") for name in row[0].split(", ")]
    assert told == list(Matchers.model_fields)


def test_each_field_of_an_alert_rule_is_explained_with_its_default() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in table(ALERT_RULES, "makes no new version.")}
    fields = {name: field.get_default(call_default_factory=True) for name, field in RuleSpec.model_fields.items()}
    assert list(told) == list(fields)
    plain = {name: default for name, default in fields.items() if isinstance(default, (bool, int, float, dict))}
    assert len(plain) > 8
    assert {name: json.loads(told[name]) for name in plain} == plain


def test_each_parameter_and_field_of_a_summary_is_explained(url: str, key: str) -> None:
    _, document = request(url, "GET", "/openapi.json", key=key)
    operation = document["paths"]["/v1/summary"]["get"]
    parameters = [row[0].strip("`") for row in table(SUMMARIES, "the README](../README.md#the-first-event)):")]
    assert parameters == [parameter["name"] for parameter in operation["parameters"]]
    fields = [name for row in table(SUMMARIES, "names the window that it is about:") for name in row[0].split(", ")]
    assert [name.strip("`") for name in fields] == list(document["components"]["schemas"]["FleetSummary"]["properties"])


def test_every_keep_time_is_told_with_its_default() -> None:
    told = {row[1].strip("`"): int(row[2].split()[0]) for row in table(RETENTION, "how long") if row[1]}
    kept = {
        f"PULSEWATCH_{name.upper()}": field.default
        for name, field in Settings.model_fields.items()
        if name.startswith("keep_")
    }
    assert told == kept


def events_in(example: str) -> bool:
    return '"occurred_at"' in example


def test_every_event_shown_is_taken(url: str, key: str) -> None:
    examples = [example for example in fences(INGESTION, "json") if events_in(example)]
    assert len(examples) >= 4
    for example in examples:
        status, said = answer(url, key, fresh(example), "Content-Type: application/json")
        assert (status, said["rejected"]) == (200, []), example


def test_every_line_of_events_shown_is_taken_plain_and_compressed(url: str, key: str) -> None:
    (example,) = fences(INGESTION, "ndjson")
    lines = fresh(example)
    count = len(lines.splitlines())
    plain = answer(url, key, lines, "Content-Type: application/x-ndjson")
    assert plain == (200, {"accepted": count, "duplicates": 0, "rejected": []})
    packings = {"gzip": gzip.compress(lines.encode()), "zstd": zstandard.compress(lines.encode())}
    for encoding, packed in packings.items():
        headers = ("Content-Type: application/x-ndjson", f"Content-Encoding: {encoding}")
        again = answer(url, key, packed, *headers)
        assert again == (200, {"accepted": 0, "duplicates": count, "rejected": []})


def test_the_answer_shown_is_the_answer_given(url: str, key: str) -> None:
    """The example of a mixed batch stands just before its answer."""
    sent, shown = (fences(INGESTION, language)[0] for language in ("json5", "http"))
    status, said = answer(url, key, fresh(sent), "Content-Type: application/json")
    head, _, body = shown.partition("\n\n")
    assert head.split()[1] == str(status)
    assert json.loads(body) == said, json.dumps(said, indent=2)


def test_the_example_of_order_turns_out_as_the_table_tells(url: str, key: str) -> None:
    (example,) = (example for example in fences(INGESTION, "json") if '"retried"' in example)
    told = []
    for event in json.loads(fresh(example)):
        status, said = answer(url, key, json.dumps(event), "Content-Type: application/json")
        assert (status, said["accepted"]) == (200, 1)
        (run,) = request(url, "GET", "/v1/runs?client=acme&pipeline=retried", key=key)[1]["items"]
        told.append((run["status"], run["finished_at"][11:16], (run["started_at"] or "")[11:16], run["duration_s"]))
    assert told == [
        ("failed", "02:03", "", None),
        ("succeeded", "02:09", "", None),
        ("succeeded", "02:09", "", None),
        ("succeeded", "02:09", "02:05", 240.0),
    ]
