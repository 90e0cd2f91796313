"""Imports point one way, and every file is listed where it must be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import striate

PROJECT = Path(__file__).parent.parent
ROOT = PROJECT / "runtime"

LAYERS = [
    {"cache_note", "errors", "record"},
    {"spec"},
    {"image", "kernels", "machine", "quantisation", "scaled_kernel", "window"},
    {"pages", "view"},
    {"step"},
    {"lowering"},
    {"algorithms"},
    {"ops"},
    {"graph"},
    {
        "intake",
        "passes",
        "memory",
        "packed_weights",
        "receptive_field",
        "strips",
        "watch",
    },
    {"plan"},
    {"prepared"},
    {"tuning"},
    {"hdf5_reader"},
    {"graph_json"},
    {"model_file"},
    {"packed_cache"},
    {"model"},
    {"__init__"},
]
"""Lowest first; modules of one layer do not see each other."""

LAZY = {"h5py", "PIL", "onnx", "onnxruntime", "torch", "sklearn"}
"""Imported only inside functions: `import striate` stays as cheap as NumPy's."""


def name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def layer(module):
    for level, names in enumerate(LAYERS):
        if module.split(".")[0] in names:
            return level
    raise AssertionError(f"{module} has no layer: add it to LAYERS")


def imported(path):
    """Yield the runtime modules that the file at `path` imports."""
    parts = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) + 1 - node.level]
            if node.module:
                yield ".".join((*base, *node.module.split(".")))
            else:
                yield from (".".join((*base, alias.name)) for alias in node.names)


RUNTIME = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", RUNTIME, ids=name)
def test_imports_point_down(path):
    own = name(path)
    for module in imported(path):
        same_package = module.split(".")[0] == own.split(".")[0]
        if same_package and own.split(".")[0] in {
            "algorithms",
            "ops",
            "passes",
            "kernels",
        }:
            continue
        assert layer(module) < layer(own), f"{own} imports {module}"


@pytest.mark.parametrize(
    "path",
    sorted([*(PROJECT / "tools").rglob("*.py"), *(PROJECT / "models").rglob("*.py")]),
    ids=lambda path: path.name,
)
def test_tools_and_models_import_striate_by_name(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "tools and models import absolutely"


@pytest.mark.parametrize("path", RUNTIME, ids=name)
def test_heavy_libraries_are_imported_late(path):
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        assert not LAZY & {n.split(".")[0] for n in names}


def test_kernels_know_nothing_of_python_objects_of_ours():
    for path in (PROJECT / "pyx").glob("*.p??"):
        for line in path.read_text().splitlines():
            if line.startswith(("import ", "from ")):
                assert "striate" not in line, f"{path.name}: {line}"


def test_every_operator_file_is_imported():
    files = {p.stem for p in (ROOT / "ops").glob("*.py")} - {"__init__", "base"}
    kinds = striate.ops.operators().values()
    assert files == {kind.__module__.rpartition(".")[2] for kind in kinds}


def test_every_operator_is_where_its_list_says():
    for name, file in striate.ops.FILES.items():
        assert getattr(striate.ops, name).__module__ == f"striate.ops.{file}"


def test_type_checkers_see_the_same_files():
    tree = ast.parse((ROOT / "ops" / "__init__.py").read_text())
    stars = [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]
    assert stars == list(striate.ops.OPERATORS)


@pytest.mark.parametrize("name", striate.__all__)
def test_every_public_name_is_found_by_itself(name):
    code = f"import striate; striate.{name}; assert {name!r} in dir(striate)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_name_is_told():
    with pytest.raises(AttributeError, match="'striate' has no attribute 'Grahp'"):
        striate.Grahp  # noqa: B018
    with pytest.raises(AttributeError, match=r"'striate\.ops' has no attribute 'Cnov'"):
        striate.ops.Cnov  # noqa: B018


def test_every_operator_is_public():
    assert striate.ops.operators().keys() <= set(striate.ops.__all__)


def test_every_package_is_listed():
    folders = {
        "runtime": "striate",
        "tools": "striate.tools",
        "models": "striate.models",
    }
    found = set()
    for folder, package in folders.items():
        for init in (PROJECT / folder).rglob("__init__.py"):
            below = init.parent.relative_to(PROJECT / folder).parts
            found.add(".".join((package, *below)))
    listed = (PROJECT / "pyproject.toml").read_text().partition("packages = [")[2]
    listed = {
        line.strip().strip('",') for line in listed.partition("]")[0].splitlines()
    } - {""}
    assert found == listed


def test_every_script_exists():
    text = (PROJECT / "pyproject.toml").read_text()
    table = text.partition("[project.scripts]")[2].partition("\n[")[0]
    for line in filter(None, map(str.strip, table.splitlines())):
        module = line.partition('"')[2].partition(":")[0].removeprefix("striate.tools.")
        assert (PROJECT / "tools" / f"{module}.py").exists(), line


def test_import_is_as_light_as_numpy():
    code = "import striate, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not LAZY & {module.split(".")[0] for module in loaded}
    ours = {module for module in loaded if module.startswith("striate.")}
    late = {"striate.graph", "striate.model", "striate.model_file", "striate.ops"}
    assert not late & ours
