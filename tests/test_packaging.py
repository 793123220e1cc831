"""The set-up: pins, extras, environment files, workflow, command line, and what the repository must not hold."""

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import medsam_helpers

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = [ROOT / folder for folder in ("tests", "tests/browser", "tools", "docs")]
CUDA = ("nvidia-", "cuda-", "triton")


def names(requirements):
    return {canonicalize_name(Requirement(r).name) for r in requirements}


def applies(requirement, extra=""):
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


@cache
def reachable():
    """Return {name: installed version} of all that `.[all]` brings here, but for the CUDA libraries that torch pins."""
    versions, seen = {}, set()
    pending = [Requirement(r) for requirements in (PROJECT["dependencies"], *EXTRAS.values()) for r in requirements]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name == "medsam-helpers":
            continue
        versions[name] = Version(metadata.version(name)).public
        for extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, extra))
            children = map(Requirement, metadata.requires(name) or [])
            pending += [c for c in children if applies(c, extra) and not (name == "torch" and c.name.startswith(CUDA))]
    return versions


def constraint_lines():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_constraints_pin_exactly_what_all_brings_at_the_installed_versions():
    lines = constraint_lines()
    assert all(re.fullmatch(r"==[^,*+]+", str(line.specifier)) for line in lines), "one exact public version a line"
    pinned = {canonicalize_name(c.name): str(c.specifier).removeprefix("==") for c in lines if applies(c)}
    needed = reachable()
    change = sorted(f"{name}=={version}" for name, version in needed.items() if pinned.get(name) != version)
    remove = sorted(pinned.keys() - needed.keys())
    assert (change, remove) == ([], []), "constraints.txt: add or change the first list, remove the second"


owners_of_modules = cache(metadata.packages_distributions)


def imported_distributions(files):
    """Return {distribution: a file that imports it} for everything outside the standard library and the project."""
    owners, found = owners_of_modules(), {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for top in {m.partition(".")[0] for m in modules} - sys.stdlib_module_names - {"medsam_helpers", "tools"}:
                if not any((folder / f"{top}.py").exists() for folder in (file.parent, *OWN)):
                    found[canonicalize_name(owners.get(top, [top])[0])] = str(file.relative_to(ROOT))
    return found


def test_core_imports_only_what_a_plain_install_brings():
    package = ROOT / "medsam_helpers"
    files = [f for f in package.rglob("*.py") if f.relative_to(package).parts[0] not in ("widgets", "mlops")]
    imported = imported_distributions(files)
    assert {name: file for name, file in imported.items() if name not in names(PROJECT["dependencies"]) | {"av"}} == {}
    assert names(PROJECT["dependencies"]) - imported.keys() == set(), "declared and not imported"


def test_all_brings_everything_that_any_file_imports():
    folders = [ROOT / name for name in ("medsam_helpers", "tests", "benchmarks", "tools", "docs")]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    available = reachable()
    (everything,) = map(Requirement, EXTRAS["all"])
    assert (everything.name, everything.extras) == (PROJECT["name"], EXTRAS.keys() - {"all"})
    assert {name: file for name, file in imported_distributions(files).items() if name not in available} == {}


def test_environment_installs_what_make_installs_on_a_supported_python():
    recipe = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "-m pip install" in line)
    made = shlex.split(recipe.partition("pip install")[2].partition("$(")[0])
    python, pip, lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert made == [word for line in lines["pip"] for word in shlex.split(line)]
    assert made == ["-c", "constraints.txt", "-e", ".[all]"]
    assert (pip, python.removeprefix("python=") in SpecifierSet(PROJECT["requires-python"])) == ("pip", True)
    # pip's resolver, with only the installed packages to choose from: no registry, no change.
    offline = ["--dry-run", "--no-index", "--no-build-isolation", "--quiet", "--report", "-"]
    command = [sys.executable, "-m", "pip", "install", *offline, *made]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [p["metadata"]["name"] for p in json.loads(result.stdout)["install"]] == [PROJECT["name"]]


def check_schema(name, path):
    result = CliRunner().invoke(check_jsonschema, ["--builtin-schema", f"vendor.{name}", str(path)])
    assert result.exit_code == 0, result.output
    return yaml.safe_load(path.read_text())


def test_the_tests_workflow_covers_every_supported_python():
    job = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["test"]
    supported = SpecifierSet(PROJECT["requires-python"])
    minors = [f"3.{minor}" for minor in range(8, 20)]
    assert job["strategy"]["matrix"]["python"] == [version for version in minors if version in supported]
    assert [step.get("run") for step in job["steps"]][-2:] == ["make lint", ".ci/run"]


def test_the_relay_s_workflow_listens_to_it_and_knows_the_gate_s_options(monkeypatch, capsys):
    from medsam_helpers.mlops import gate
    from medsam_helpers.mlops.webhooks import EVENT

    workflow = yaml.safe_load((ROOT / ".github/workflows/evaluate-and-promote.yml").read_text())
    assert workflow[True]["repository_dispatch"]["types"] == [EVENT]  # YAML 1.1 reads `on` as true
    monkeypatch.setattr(sys, "argv", ["gate", "--help"])
    with pytest.raises(SystemExit, match="0"):
        gate.main()
    known = capsys.readouterr().out
    asked = re.findall(r"--\w+", workflow["jobs"]["gate"]["steps"][-1]["run"])
    assert {"--version", "--data"} <= set(asked) <= set(re.findall(r"--\w+", known))


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_is_valid_fetches_fixed_versions_reads_only_and_fails_where_a_command_does(path):
    workflow = check_schema("github-workflows", path)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step for step in steps if "${{" in step.get("run", "")] == [], "what others send is no part of a command"
    assert workflow["permissions"] == {"contents": "read"}
    more = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert more == ({"publish": {"pages": "write", "id-token": "write"}} if path.stem == "pages" else {})
    lines = re.findall(r"uses: .+", path.read_text())
    assert len(lines) == sum("uses" in step for step in steps)
    assert [line for line in lines if not re.fullmatch(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40}  # v[\d.]+", line)] == []
    piped = [step for step in steps if re.search(r"[^|]\|[^|]", step.get("run", ""))]
    assert [step["name"] for step in piped if step.get("shell") != "bash"] == [], "without it there is no pipefail"
    assert not re.search(r"pipx run (?!uv==\d+[.]\d+[.]\d+ )", path.read_text())


def test_what_builds_the_package_and_what_pre_commit_runs_is_pinned_too():
    pins = {line.name: str(line) for line in constraint_lines()}
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"] == [pins["setuptools"]]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["additional_dependencies"] for hook in hooks] == [[pins["ruff"]]] * 2


def test_citation_is_valid_and_names_this_version():
    citation = check_schema("citation-file-format", ROOT / "CITATION.cff")
    assert citation["version"] == medsam_helpers.__version__ == metadata.version(PROJECT["name"])
    assert citation["license"] == PROJECT["license"]


HOSTS = r"pypi[.]org|python[h]osted|registry[.]npmjs|deb[.]debian[.]org|download[.]pytorch"  # [] not to find itself
TRACES = re.compile(HOSTS + r"|/(?:work|root|farm|tmp)/[\w.-]+")


def test_no_tracked_file_names_a_registry_host_or_a_machine_path():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout: nothing is tracked")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    texts = {file: file.read_text(errors="ignore") for file in files if file.is_file()}
    assert {str(file): hit.group() for file, text in texts.items() if (hit := TRACES.search(text))} == {}
