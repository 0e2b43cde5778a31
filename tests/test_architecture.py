"""The structure of the package: layers, cycles, private names, sizes, and a test module for each module."""

import ast
import graphlib
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sb3_mirl"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text()) for file in FILES}
#: From the top: imports point downwards only
LAYERS = ("cli", "bench", "zoo", "joint", "mirl", "common")
#: What these folders may import of the package, beside themselves
SIDE_FOLDERS = {"envs": (), "tabular": ("envs", "mirl.operators")}
#: Layers that may use the environments and the tabular tools
ABOVE_ENVS = ("cli", "bench", "zoo")
MAX_LINES, MAX_LINES_OF_MIRL, MAX_LINES_OF_A_FUNCTION = 450, 300, 60


def module_name(file):
    """``mirl.operators`` for ``sb3_mirl/mirl/operators.py``; a package's ``__init__`` has the package's name."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def imports(file):
    """Modules of the package that a file imports anywhere, with the names that it takes from each."""
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "sb3_mirl":
                    yield alias.name.partition(".")[2], None
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            if node.module and node.module.split(".")[0] == "sb3_mirl":
                base = node.module.partition(".")[2]
                for alias in node.names:
                    inner = f"{base}.{alias.name}".strip(".")
                    yield (inner, None) if inner in MODULES else (base, alias.name)


def folder_of(module):
    return module.split(".")[0]


def is_allowed(importer, imported):
    ours, theirs = folder_of(importer), folder_of(imported)
    if ours == theirs or imported == "":
        return True
    if ours in SIDE_FOLDERS:
        return theirs in SIDE_FOLDERS[ours] or imported in SIDE_FOLDERS[ours]
    if theirs in SIDE_FOLDERS:
        return ours in ABOVE_ENVS
    return LAYERS.index(ours) < LAYERS.index(theirs)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("", "__main__")])
def test_imports_point_downwards(module):
    wrong = [imported for imported, _ in imports(MODULES[module]) if not is_allowed(module, imported)]
    assert not wrong, f"{module} imports {wrong}"


def test_operators_import_torch_only():
    tree = TREES[PACKAGE / "mirl" / "operators.py"]
    roots = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])])
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert roots <= {"torch", "math", "collections", "typing"}, roots


def test_there_are_no_import_cycles():
    graph = {}
    for name, file in MODULES.items():
        if name != "":  # the table of public names refers to everything
            graph[name] = {imported for imported, _ in imports(file)} - {"", name}
    graphlib.TopologicalSorter(graph).prepare()


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("module", MODULES)
def test_modules_use_no_private_names_of_each_other(module):
    file, aliases, wrong = MODULES[module], {}, []
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sb3_mirl":
            for alias in node.names:
                if is_private(alias.name):
                    wrong.append(alias.name)
                aliases[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.Import):
            aliases |= {a.asname: a.name for a in node.names if a.asname and a.name.startswith("sb3_mirl.")}
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            inner = node.value
            if isinstance(inner, ast.Name) and inner.id in aliases:
                wrong.append(f"{inner.id}.{node.attr}")
            elif isinstance(inner, ast.Name) and inner.id in ("model", "checkpoint", "writer") and node.attr in OWN_PRIVATE:
                # Attributes of our classes, not SB3's
                wrong.append(f"{inner.id}.{node.attr}")
    assert not wrong, f"{module} uses {wrong}"


def private_attributes(files):
    """What our classes set on ``self`` under a private name, and their private methods."""
    found = set()
    for file in files:
        for node in ast.walk(TREES[file]):
            if isinstance(node, ast.ClassDef):
                methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
                found |= {item.name for item in methods if is_private(item.name)}
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and is_private(inner.attr):
                        found.add(inner.attr)
    return found


#: SB3's own protected attributes, which its subclasses and helpers use by design
SB3_PROTECTED = {
    *("_last_obs", "_last_original_obs", "_last_episode_starts", "_n_updates", "_episode_num", "_num_timesteps_at_start"),
    *("_total_timesteps", "_current_progress_remaining", "_stats_window_size", "_vec_normalize_env", "_logger", "_n_calls"),
    *(
        "_setup_model",
        "_setup_learn",
        "_init_callback",
        "_on_step",
        "_on_rollout_start",
        "_on_rollout_end",
        "_on_training_end",
    ),
    *("_excluded_save_params", "_sample_action", "_store_transition", "_update_learning_rate", "_wrap_env", "_custom_logger"),
    *("_update_info_buffer", "_update_current_progress_remaining", "_get_policy_from_name", "_predict", "_on_training_start"),
    *("_get_constructor_parameters", "_apply", "_build", "_convert_train_freq", "_setup_lr_schedule", "_create_aliases"),
}
OWN_PRIVATE = private_attributes(FILES) - SB3_PROTECTED


def foreign_patches(file):
    """Names from other packages of which a file sets attributes, by assignment or by setattr."""
    tree, foreign = TREES[file], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            foreign |= {(a.asname or a.name).split(".")[0] for a in node.names if not a.name.startswith("sb3_mirl")}
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("sb3_mirl"):
            foreign |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        target = node
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            target = node.args[0]
        elif not (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)):
            continue
        while isinstance(target, ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name) and target.id in foreign:
            yield target.id


#: Workers of SubprocVecEnv can only call methods of environments: two methods are added in those processes
PATCHES_IN_WORKERS = {"common/resume/kinds_environments.py": {"gym"}}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_foreign_packages_are_patched_in_one_place_only(file):
    assert not re.search(r"unittest|\bmock\b", file.read_text())
    name = file.relative_to(PACKAGE).as_posix()
    if name != "zoo/workarounds.py":
        assert set(foreign_patches(file)) == PATCHES_IN_WORKERS.get(name, set())


@pytest.mark.parametrize(
    "file",
    sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").glob("*.py")]),
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_scripts_import_names_that_exist(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sb3_mirl":
            module = importlib.import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing or all(f"{node.module}.{name}".partition(".")[2] in MODULES for name in missing)


@pytest.mark.parametrize("file", sorted((PACKAGE / "common").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_common_does_not_mention_the_algorithm(file):
    text = file.read_text().replace("sb3_mirl", "").replace("sb3-mirl", "")
    assert not re.findall(r"MIRL|\bSQL|ρ|β|\bbeta_\w+|\bprior\w*", text)


@pytest.mark.parametrize("file", sorted((PACKAGE / "mirl").glob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_are_short_in_the_folder_of_the_algorithm(file):
    assert len(file.read_text().splitlines()) <= MAX_LINES_OF_MIRL


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_are_short(file):
    assert len(file.read_text().splitlines()) <= MAX_LINES


def body_lines(function):
    """Lines of a function without signature and docstring."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(getattr(body[0], "value", None), ast.Constant):
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_functions_fit_on_a_screen(file):
    functions = [node for node in ast.walk(TREES[file]) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    long = {node.name: body_lines(node) for node in functions if node.name != "__init__"}
    assert not {name: lines for name, lines in long.items() if lines > MAX_LINES_OF_A_FUNCTION}


@pytest.mark.parametrize(
    "file", [file for file in FILES if not file.name.startswith("__")], ids=lambda file: str(file.relative_to(ROOT))
)
def test_every_module_has_a_test_module_of_its_name(file):
    relative = file.relative_to(PACKAGE)
    assert (ROOT / "tests" / relative.parent / f"test_{relative.name}").is_file()
