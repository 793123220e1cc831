"""The set-up: pins, extras, environment files, workflow, command line, and what the repository must not hold."""

import ast
import io
import json
import pkgutil
import re
import shlex
import subprocess
import sys
import tokenize
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import medsam_helpers

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OPTIONAL_PARTS = ("widgets", "mlops")
CUDA = ("nvidia-", "cuda-", "triton")


def names(requirements):
    return {canonicalize_name(Requirement(r).name) for r in requirements}


def applies(requirement, extra=""):
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


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
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def pip_part():
    return next(d["pip"] for d in environment()["dependencies"] if isinstance(d, dict))


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def resolve(pip_lines):
    """Run pip's resolver on the lines with only the installed packages to choose from: no registry, no change."""
    arguments = [word for line in pip_lines for word in shlex.split(line)]
    offline = ["--dry-run", "--no-index", "--no-build-isolation", "--quiet", "--report", "-"]
    return run("-m", "pip", "install", *offline, *arguments)


def test_constraints_pin_exactly_what_all_brings_at_the_installed_versions():
    lines = constraint_lines()
    assert all(re.fullmatch(r"==[^,*+]+", str(line.specifier)) for line in lines), "one exact public version a line"
    pinned = {canonicalize_name(c.name): str(c.specifier).removeprefix("==") for c in lines if applies(c)}
    needed = reachable()
    change = sorted(f"{name}=={version}" for name, version in needed.items() if pinned.get(name) != version)
    remove = sorted(pinned.keys() - needed.keys())
    assert (change, remove) == ([], []), "constraints.txt: add or change the first list, remove the second"


def test_extras_are_the_promised_ones_and_all_holds_the_rest():
    assert EXTRAS.keys() == {"notebooks", "widget", "mlops", "dev", "all"}
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == EXTRAS.keys() - {"all"}


def imported_distributions(files):
    """Return {distribution: a file that imports it} for everything outside the standard library and the project."""
    owners = metadata.packages_distributions()
    found = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for top in {m.partition(".")[0] for m in modules} - sys.stdlib_module_names - {"medsam_helpers", "tests"}:
                if not any((folder / f"{top}.py").exists() for folder in (file.parent, ROOT / "tools")):
                    found[canonicalize_name(owners.get(top, [top])[0])] = str(file.relative_to(ROOT))
    return found


def core_files():
    package = ROOT / "medsam_helpers"
    return [f for f in package.rglob("*.py") if f.relative_to(package).parts[0] not in OPTIONAL_PARTS]


def test_core_imports_only_what_a_plain_install_brings():
    imported = imported_distributions(core_files())
    undeclared = {name: file for name, file in imported.items() if name not in names(PROJECT["dependencies"])}
    assert undeclared == {}
    # pandas' Styler renders with jinja2, and pandas itself does not ask for it.
    assert names(PROJECT["dependencies"]) - imported.keys() == {"jinja2"}, "declared and not imported"


def test_all_brings_everything_that_any_file_imports():
    files = [f for folder in ("medsam_helpers", "tests", "benchmarks", "tools") for f in (ROOT / folder).rglob("*.py")]
    available = reachable()
    assert {name: file for name, file in imported_distributions(files).items() if name not in available} == {}


def test_environment_installs_what_make_installs():
    recipe = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "-m pip install" in line)
    made = shlex.split(recipe.partition("pip install")[2].partition("$(")[0])
    assert made == ["-c", "constraints.txt", "-e", ".[all]"]
    assert [word for line in pip_part() for word in shlex.split(line)] == made


def test_environment_brings_a_supported_python_and_pip_alone():
    python, pip = (d for d in environment()["dependencies"] if isinstance(d, str))
    assert pip == "pip"
    assert python.removeprefix("python=") in SpecifierSet(PROJECT["requires-python"])


def test_pip_part_of_the_environment_resolves_to_what_is_installed():
    result = resolve(pip_part())
    assert result.returncode == 0, result.stderr
    assert [p["metadata"]["name"] for p in json.loads(result.stdout)["install"]] == [PROJECT["name"]]


def test_pip_part_with_an_impossible_pin_does_not_resolve(tmp_path):
    doctored = tmp_path / "constraints.txt"
    doctored.write_text(re.sub(r"(?m)^numpy==.*", "numpy==1.26.0", (ROOT / "constraints.txt").read_text()))
    result = resolve([line.replace("constraints.txt", str(doctored)) for line in pip_part()])
    assert result.returncode != 0
    assert "conflict" in result.stderr


def check_workflow(path):
    return run("-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path))


def test_workflow_is_valid_and_covers_every_supported_python(tmp_path):
    path = ROOT / ".github/workflows/tests.yml"
    assert check_workflow(path).returncode == 0
    tested = yaml.safe_load(path.read_text())["jobs"]["test"]["strategy"]["matrix"]["python"]
    supported = SpecifierSet(PROJECT["requires-python"])
    assert tested == [v for v in (f"3.{minor}" for minor in range(8, 20)) if v in supported]

    doctored = tmp_path / "tests.yml"
    doctored.write_text(path.read_text().replace("runs-on", "run-on"))
    assert check_workflow(doctored).returncode != 0


def test_pre_commit_runs_the_pinned_ruff():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pin = next(str(line) for line in constraint_lines() if line.name == "ruff")
    assert [hook["additional_dependencies"] for hook in hooks] == [[pin]] * 2


def test_citation_is_valid_and_names_this_version():
    path = ROOT / "CITATION.cff"
    check = run("-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format", str(path))
    assert check.returncode == 0, check.stdout
    citation = yaml.safe_load(path.read_text())
    assert citation["version"] == medsam_helpers.__version__ == metadata.version(PROJECT["name"])
    assert citation["license"] == PROJECT["license"]


def test_core_loads_no_optional_library():
    found = pkgutil.walk_packages(medsam_helpers.__path__, "medsam_helpers.")
    core = [m.name for m in found if m.name.split(".")[1] not in OPTIONAL_PARTS]
    assert "medsam_helpers.geometry" in core
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(*sorted({'mlflow', 'fastapi', 'optuna', 'anywidget'} & sys.modules.keys()))"
    )
    result = run("-c", script, "medsam_helpers", *core)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("script", PROJECT["scripts"])
def test_console_script_explains_itself(script):
    # Beside the interpreter lies what the installation made of the entry point, so this proves the entry point too.
    command = Path(sys.executable).with_name(script)
    result = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: {script}")


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, comments or docstrings."""
    source = path.read_text()
    prose = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {n for t in tokens if t.type not in silent for n in range(t.start[0], t.end[0] + 1)}
    return len(code - prose)


def test_modules_are_one_idea_each():
    long = {f.name: lines for f in core_files() if (lines := len(f.read_text().splitlines())) > 260}
    assert not long, f"a module that wants to grow is two ideas: {long}"


def test_the_engine_stays_small_enough_to_read():
    # Beside it: pictures, exercise checkers, phantoms and the recording of experiments, which nobody has to read to
    # follow the data.
    beside = re.compile(r"exercises/|plotting|phantoms_|/(comparison|experiments|reproduce|record|shipping).py")
    lines = {name: code_lines(f) for f in core_files() if not beside.search(name := str(f.relative_to(ROOT)))}
    assert sum(lines.values()) < 4200, sorted(lines.items(), key=lambda item: -item[1])


# Brackets keep the patterns from finding themselves.
TRACES = re.compile(
    r"pypi[.]org|python[h]osted|registry[.]npmjs|deb[.]debian[.]org|download[.]pytorch"
    r"|/(?:work|root|farm|tmp)/[\w.-]+"
)


@pytest.mark.parametrize("parts", [("pypi", "org/simple"), ("files.python" + "hosted", "org"), ("see /root/", "venv")])
def test_traces_are_recognised(parts):
    assert TRACES.search(".".join(parts))


def test_no_tracked_file_names_a_registry_host_or_a_machine_path():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout: nothing is tracked")
    tracked = [ROOT / name for name in listing.stdout.split("\0") if name]
    texts = {f.relative_to(ROOT): f.read_text(errors="ignore") for f in tracked if f.is_file()}
    found = {str(name): hit.group() for name, text in texts.items() if (hit := TRACES.search(text))}
    assert found == {}
