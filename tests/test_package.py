"""The wheel alone, installed in a clean environment outside the tree, is a working PulseWatch."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.running import ROOT, command, request, run

pytestmark = pytest.mark.slow(60)


def do(*words: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, words)], check=False, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    do(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, open_folder: Path) -> tuple[str]:
    """The installed command, with exactly what the package declares beside it."""
    environment = open_folder / "environment"
    python = environment / "bin" / "python"
    do(sys.executable, "-m", "venv", environment, cwd=open_folder)
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
    do(*pip, "install", "--require-hashes", "-r", ROOT / "requirements.txt", cwd=open_folder)
    do(*pip, "install", "--no-deps", wheel, cwd=open_folder)
    do(*pip, "check", cwd=open_folder)
    return (str(environment / "bin" / "pulsewatch"),)


def test_the_wheel_carries_every_object_revision_and_spec(wheel: Path) -> None:
    inside = {name.removeprefix("pulsewatch/_data/") for name in zipfile.ZipFile(wheel).namelist()}
    objects = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sql" / "analytics").glob("*.sql")}
    migrations = ROOT / "backend" / "migrations"
    revisions = {path.relative_to(migrations.parent).as_posix() for path in (migrations / "versions").glob("*.py")}
    specs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "metabase" / "specs").glob("*.yaml")}
    assert objects
    assert revisions
    assert specs
    assert objects | revisions | specs | {"migrations/env.py"} <= inside


def test_the_wheel_alone_migrates_and_takes_events(program: tuple[str], data_dir: Path) -> None:
    migrated = run("migrate", "--data-dir", data_dir, program=program)
    assert (migrated.process.returncode, migrated.out, migrated.err) == (0, [], ["migrated\n"])
    with command("up", "--data-dir", data_dir, "--port", 0, program=program) as up:
        url = up.url()
        key = run("key", "create", "--role", "write", "--client", "acme", "--data-dir", data_dir, program=program)
        event = {
            "type": "run",
            "pipeline": "load",
            "run": "r1",
            "status": "running",
            "occurred_at": do("date", "-u", "+%Y-%m-%dT%H:%M:%SZ", cwd=data_dir).strip(),
        }
        status, body = request(url, "POST", "/v1/events", key=key.out[0].strip(), body=event)
        assert (status, body) == (200, {"accepted": 1, "duplicates": 0, "rejected": []})
        assert up.stop() == 0


def test_the_wheel_alone_reads_the_specs_for_metabase(program: tuple[str]) -> None:
    """It gets as far as to look for Metabase: the port of discarded things has no server."""
    settings = {"PULSEWATCH_METABASE_URL": "http://127.0.0.1:9", "PULSEWATCH_METABASE_API_KEY": "mb_x"}
    planned = run("metabase", "plan", "--timeout", 1, program=program, **settings)
    assert planned.process.returncode == 1
    assert planned.err[-1].startswith("Error: no Metabase is ready at http://127.0.0.1:9 after 1 s")
