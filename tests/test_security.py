"""What our own sources never do: load pickles, run text as code, leave archives' members or downloads unchecked."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [path for name in ("sim", "harness", "tpgr_jax", "hrlmg_jax", "conf") for path in (ROOT / name).rglob("*.py")]
PICKLING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CODE_FROM_TEXT = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"read_pickle", "to_pickle", "unsafe_load", "full_load", "extractall", "extract", "urlretrieve"}


def findings(source: str) -> list[str]:
    """Names every forbidden import and call of a source text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.partition(".")[0] in PICKLING]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] if node.func.id in CODE_FROM_TEXT else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            refuses = any(
                keyword.arg == "allow_pickle" and ast.unparse(keyword.value) == "False" for keyword in node.keywords
            )
            if called in ("np.load", "numpy.load") and not refuses:
                found.append("numpy.load without allow_pickle=False")
            if called == "yaml.load" or node.func.attr in ATTRIBUTES:
                found.append(called)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_loads_pickles_or_runs_text(path):
    assert findings(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "numpy.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "yaml.load(file)",
        "pandas.read_pickle(path)",
        "archive.extractall(folder)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert len(findings(source)) >= 1
