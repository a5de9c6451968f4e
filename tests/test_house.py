"""The house rules that a program can check: tests mirror the code, locks are sealed, no file names a machine."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.processes import ROOT

PACKAGES = ("accounts", "kodna", "models_catalog", "proxy")
NOT_TESTED_ALONE = {"__init__.py", "apps.py", "urls.py"}  # a fault there breaks what the other tests use
# Spelled in pieces, so that this file does not hold what it looks for.
REGISTRIES = ("pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com/", "deb." + "debian.org")
MACHINE_PATH = re.compile(r"(?:^|[^\w.$~<>*-])/(?:home|root|Users|work|private)/\w", re.MULTILINE)


@cache
def project_files() -> tuple[Path, ...]:
    """What is committed, or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no git checkout")
    return tuple(path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file())


def texts() -> list[tuple[str, str]]:
    """The name and content of every file that is text."""
    found = []
    for path in project_files():
        try:
            found.append((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_a_test_file_per_module() -> None:
    missing = []
    for path in project_files():
        place = path.relative_to(ROOT)
        if place.parts[0] not in PACKAGES or path.suffix != ".py" or "migrations" in place.parts:
            continue
        if place.name not in NOT_TESTED_ALONE:
            mirror = Path("tests", *place.parts[:-1], f"test_{place.name}")
            if not (ROOT / mirror).exists():
                missing.append(str(mirror))
    assert not missing, f"modules without tests: {missing}"


def test_every_test_folder_is_a_package() -> None:
    """Else two test files of one name are one module to Python."""
    folders = {
        path.parent for path in project_files() if path.parts[len(ROOT.parts)] == "tests" and path.suffix == ".py"
    }
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("host", REGISTRIES)
def test_no_file_names_a_package_registry(host: str) -> None:
    assert [name for name, text in texts() if host in text] == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    found = [f"{name}: {match[0]}" for name, text in texts() for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_the_machine_path_is_recognised() -> None:
    sample = "/" + "root/x"
    assert MACHINE_PATH.search(f"cd {sample}")
    assert MACHINE_PATH.search(f'"{sample}"')
    assert not MACHINE_PATH.search(f"https://example.com{sample}")
    assert not MACHINE_PATH.search(f"$FOLDER{sample}")


def python_locks() -> list[Path]:
    return [path for path in project_files() if re.fullmatch(r"requirements.*\.txt", path.name)]


def test_python_locks_have_hashes_and_no_addresses() -> None:
    assert python_locks()
    for path in python_locks():
        lines = [line for line in path.read_text().splitlines() if line and not line.lstrip().startswith("#")]
        text = "\n".join(lines)
        assert "://" not in text, path
        assert not re.search(r"^--?[a-z]", text, re.MULTILINE), f"{path}: an option"
        for requirement in re.split(r"\n(?=\S)", text):
            assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", requirement), f"{path}: not pinned: {requirement[:80]}"
            assert "--hash=sha256:" in requirement, f"{path}: no hash: {requirement[:80]}"


def test_javascript_locks_have_hashes_and_no_addresses() -> None:
    locks = [path for path in project_files() if path.name == "package-lock.json"]
    assert locks
    for path in locks:
        packages = json.loads(path.read_text())["packages"]
        installed = {name: entry for name, entry in packages.items() if name}
        assert installed, path
        assert [name for name, entry in installed.items() if "resolved" in entry] == [], path
        assert [name for name, entry in installed.items() if "integrity" not in entry] == [], path


def test_what_is_not_run_on_sqlite_has_no_test_of_the_database() -> None:
    [words] = re.findall(
        r"^NOT_ON_SQLITE := .*--ignore=tests/,([a-z/ ]+)\)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    found = []
    for folder in words.split():
        files = [(name, text) for name, text in texts() if name.startswith(f"tests/{folder}/") and name.endswith(".py")]
        assert files, folder
        found += files if folder != "browser" else []
    assert [name for name, text in found if re.search(r"\b(django_db|(transactional_)?db)\b", text)] == []


def test_what_ci_runs_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
