"""What the site makes itself: a page for each module of the packages, and for each example with what it prints.

MkDocs calls `on_startup`, `on_config` and `on_files`. Both lists are found by walking the folders, so that they follow
every move of a module.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PACKAGES = ("tpgr_jax", "hrlmg_jax", "sim", "harness")
EXAMPLES = ROOT / "docs" / "examples"
_SERVING = "serving"


def on_startup(command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Remembers whether the site is only being looked at, in which case the examples are not run."""
    os.environ["TPGR_JAX_DOCS"] = _SERVING if command == "serve" else command


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the two empty entries of the navigation."""
    reference = [{package: _navigation(ROOT / package)} for package in PACKAGES]
    examples = [{_title(path): _page_of(path)} for path in example_scripts()]
    filled = {"API reference": reference, "Examples": examples}
    config.nav = [{name: filled.get(name, pages) for name, pages in entry.items()} for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = _dotted(path)
            files.append(File.generated(config, f"api/{name}.md", content=f"# `{name}`\n\n::: {name}\n"))
    scripts = example_scripts()
    with ThreadPoolExecutor(len(scripts)) as pool:
        printed = pool.map(_run, scripts)
    for path, output in zip(scripts, printed, strict=True):
        files.append(File.generated(config, _page_of(path), content=_example_page(path, output)))
    return files


def example_scripts() -> list[Path]:
    """Returns the examples, the first one to read first."""
    return sorted(EXAMPLES.glob("*.py"), key=lambda path: (path.stem != "first_run", path.stem))


def _navigation(folder: Path) -> list[Any]:
    """Returns the pages of a package in order: itself, its modules, its sub-packages."""
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    entries: list[Any] = [f"api/{_dotted(folder / '__init__.py')}.md"]
    entries += [{path.stem: f"api/{_dotted(path)}.md"} for path in modules]
    inner = sorted(path.parent for path in folder.glob("*/__init__.py"))
    return entries + [{path.name: _navigation(path)} for path in inner]


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _page_of(script: Path) -> str:
    return f"examples/{script.stem}.md"


def _title(script: Path) -> str:
    return _docstring(script).splitlines()[0].rstrip(".")


def _docstring(script: Path) -> str:
    return ast.get_docstring(ast.parse(script.read_text("utf-8"))) or script.stem


def _run(script: Path) -> str:
    """Runs an example in an empty folder and returns what it prints; nothing while the site is only looked at."""
    if os.environ.get("TPGR_JAX_DOCS") == _SERVING:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "JAX_PLATFORMS": "cpu"}
        finished = subprocess.run(
            [sys.executable, str(script)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1800,
        )
        if finished.returncode:
            raise PluginError(f"{script.name} failed with code {finished.returncode}:\n{finished.stderr}")
        return finished.stdout.replace(folder + os.sep, "")


def _example_page(script: Path, output: str) -> str:
    """Returns a page with the prose and the code of a script, and what it printed.

    Comments that begin with `# %% ` are headings, the comment lines below them are prose.
    """
    title, _, introduction = _docstring(script).partition("\n")
    body = script.read_text("utf-8").split('"""', 2)[2]
    imports, *cells = body.split("\n# %% ")
    parts = [
        f"# {title.rstrip('.')}",
        introduction.strip(),
        f"Run it: `python docs/examples/{script.name}`",
        _code(imports),
    ]
    for cell in cells:
        heading, *lines = cell.splitlines()
        prose = list(takewhile(lambda line: line.startswith("#"), lines))
        text = "\n".join(line.removeprefix("#").strip() for line in prose)
        parts += [f"## {heading}", text, _code("\n".join(lines[len(prose) :]))]
    if output:
        parts += ["## What it prints", f"```text\n{output.strip()}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _code(text: str) -> str:
    return f"```python\n{text.strip()}\n```" if text.strip() else ""
