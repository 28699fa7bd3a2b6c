"""A run outside this project: its program as StableHLO, its arrays, ids and titles, and how to call it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from harness.runs.provenance import describe_environment
from harness.serving.episodes import KINDS, padded
from harness.serving.exported import ANY_BATCH, FORMAT, MODEL_FILE, PATHS, PROGRAM, content_of
from sim.recommend.ask import Asked, best_items
from sim.recommend.export_folder import new_export
from sim.recommend.recommender import Recommender, ranked_for

PLATFORMS = ("cpu", "cuda", "tpu")
BATCHES = tuple(2**power for power in range(11))
"""Batches of programs whose shapes cannot be symbolic."""
_SHOWN_BELOW = 3
_NODES_SHOWN = 1024  # of a level; the lists of larger levels would take long
_EVALUATIONS = ("eval.json", "online.json", "offline.json")


class _Program(NamedTuple):
    """A function of (arrays by name, question) and the arrays that it reads."""

    call: Callable[[dict[str, Any], dict[str, Any]], Any]
    arrays: dict[str, np.ndarray]


def write_export(recommender: Recommender, out: str, k: int, users: bool) -> dict[str, Any]:
    """Writes an export into a folder, which takes the place of an earlier export there.

    Args:
        recommender: The run.
        out: The folder.
        k: The longest list that can be asked for; rounded up as `ranked_for` does.
        users: Whether the histories of the users in the data are written, so that users can be asked for by id.

    Returns:
        The content of `model.json`.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    with new_export(Path(out).expanduser()) as folder:
        return _write_into(folder, recommender, ranked_for(k), users)


def _write_into(folder: Path, recommender: Recommender, k: int, users: bool) -> dict[str, Any]:
    system = recommender.system
    # The program that ranks, and for a tree the one that also tells the paths; both read the same arrays.
    whole = {PROGRAM: _whole_program(recommender, k, False)}
    if system.policy.path is not None:
        whole[PATHS] = _whole_program(recommender, k, True)
        _write_nodes(folder, recommender)
    question = _question(recommender, "1, 16")
    read = frozenset().union(*(_read_by(program, question) for program in whole.values()))
    exports = {name: _exports(recommender, _only(program, read), name) for name, program in whole.items()}
    files: dict[str, dict[str, str]] = {}
    for name, by_batch in exports.items():
        files[name] = {batch: name + f"_{batch}.stablehlo" for batch in by_batch}
        for batch, exported in by_batch.items():
            (folder / files[name][batch]).write_bytes(exported.serialize())
    arrays = _only(whole[PROGRAM], read).arrays
    np.savez(folder / "arrays.npz", allow_pickle=False, **arrays)

    # Ids, titles and users.
    np.savez_compressed(folder / "items.npz", allow_pickle=False, **_items(recommender))
    if users:
        np.savez_compressed(folder / "users.npz", allow_pickle=False, **_users(recommender))

    # What it is and how it is called.
    answers = system.answers
    record, metrics = _facts_of_run(Path(recommender.source))
    model = {
        "format": FORMAT,
        "model": content_of(folder),
        "system": type(system).__module__.partition(".")[0],
        "method": system.name,
        "step": recommender.step,
        "k": k,
        "items": system.num_items,
        "episode_length": system.env.episode_length,
        "history_width": system.history_width,
        "remembers": recommender.remembers,
        "score": system.policy.score,
        "path_score": system.policy.path_score,
        "answers": answers._asdict() | {"kind": system.answer_kind},
        "programs": files,
        "inputs": _described(recommender),
        "outputs": OUTPUTS,
        "how_to_call": _how_to_call(next(iter(files[PROGRAM].values()))),
        "users": bool(users),
        "platforms": list(PLATFORMS),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "made_with": describe_environment(),
        "data": record.get("data", {}),
        "metrics": metrics,
    }
    (folder / MODEL_FILE).write_text(json.dumps(model, indent=2, allow_nan=False) + "\n")
    return model


def _how_to_call(file: str) -> list[str]:
    """Returns the lines of Python that call a program in the folder of the export."""
    return [
        "import jax.export, numpy as np",
        f"program = jax.export.deserialize(bytearray(open({file!r}, 'rb').read()))",
        "arrays = dict(np.load('arrays.npz'))",
        "# question: a dict of the arrays that `inputs` describes",
        "items, scores = program.call(arrays, question)",
    ]


def _facts_of_run(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the record of the run, and by file what its evaluations found of each policy."""
    record = _read_object(run / "run.json")
    every = {name: _read_object(run / name) for name in _EVALUATIONS}
    return record, {name: found["policies"] for name, found in every.items() if "policies" in found}


def _read_object(file: Path) -> dict[str, Any]:
    """Returns a JSON object with null for numbers that are none; {} where the file holds no object."""
    with suppress(OSError, ValueError):
        found = json.loads(file.read_text(), parse_constant=lambda _: None)
        return found if isinstance(found, dict) else {}
    return {}


def _exports(recommender: Recommender, program: _Program, name: str) -> dict[str, export.Exported]:
    """Returns the program for any batch if its shapes can be symbolic, else for batches of powers of two."""
    with suppress(Exception):  # whatever a program does with a size that is no number
        return {ANY_BATCH: _exported(program, _question(recommender, "b, e"))}
    batches = (1,) if name == PATHS else BATCHES
    return {str(batch): _exported(program, _question(recommender, f"{batch}, e")) for batch in batches}


def _described(recommender: Recommender) -> dict[str, Any]:
    """Returns the inputs of the program: shapes (b users, e excluded items each), types and what they mean."""
    return {
        name: {"shape": list(map(str, shape.shape)), "dtype": str(shape.dtype), "meaning": _MEANING[name]}
        for name, shape in _question(recommender, "b, e").items()
    }


OUTPUTS = {
    PROGRAM: ["items [b, k], -1 where there is none", "scores [b, k]"],
    PATHS: [
        "items",
        "scores",
        "score [b, k, d] of the child at each level",
        "child [b, k, d]",
        "items [b, k, d] below it",
    ],
}
_MEANING = {
    "items": "what was recommended and answered, in order of time, padded with -1 behind; no item twice",
    "answers": "code of the answer to each, an index into answers.values",
    "length": "how many of them there are",
    "excluded": "other items that are not recommended, none twice and none of `items`, padded with -1",
    "repeatable": "how many of `items`, from the first, may be recommended again",
    "available": "items that may be recommended",
    "browsed": "what the user was shown before, the last ones, padded with -1 in front",
    "clicked": "what of it the user clicked or ordered, likewise",
    "ordered": "what of it the user ordered, likewise",
}


def _whole_program(recommender: Recommender, k: int, with_path: bool) -> _Program:
    """Returns the program of all that a system hands it; most of it it does not read."""
    system = recommender.system
    leaves, treedef = jax.tree_util.tree_flatten_with_path(system.program_params)
    names = [f"{number:03d}{_plain(path)}" for number, (path, _) in enumerate(leaves)]

    def call(arrays: dict[str, Any], question: dict[str, Any]) -> Any:
        params = jax.tree.unflatten(treedef, [arrays[name] for name in names])
        replay = system.replay_of(params, question)
        asked = Asked(replay, question["excluded"], question["repeatable"], question["available"])
        ranking, path = best_items(system.env, system.policy, k, with_path, asked)
        return (*ranking, *(() if path is None else path))

    return _Program(call, {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)})


def _plain(path: tuple[Any, ...]) -> str:
    """Returns the name of a leaf, as a file may be called."""
    keys = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", ""))) for key in path)
    return "".join(f".{key}" for key in keys)


def _read_by(program: _Program, question: dict[str, Any]) -> set[str]:
    """Returns the names of the arrays that a program reads."""
    kept = set(_exported(program, question).module_kept_var_idx)
    return {name for place, name in enumerate(sorted(program.arrays)) if place in kept}


def _only(program: _Program, read: frozenset[str]) -> _Program:
    """Returns the program of some of its arrays; it does not read the others."""
    unread = {name: array for name, array in program.arrays.items() if name not in read}

    def call(arrays: dict[str, Any], question: dict[str, Any]) -> Any:
        others = {name: jnp.zeros(array.shape, array.dtype) for name, array in unread.items()}
        return program.call(others | arrays, question)

    return _Program(call, {name: program.arrays[name] for name in sorted(read)})


def _exported(program: _Program, question: dict[str, Any]) -> export.Exported:
    arrays = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in program.arrays.items()}
    return export.export(jax.jit(program.call), platforms=PLATFORMS)(arrays, question)


def _question(recommender: Recommender, sizes: str) -> dict[str, Any]:
    """Returns the shapes of a question of B users with E excluded items each."""
    batch, excluded = export.symbolic_shape(sizes)
    system, shape = recommender.system, jax.ShapeDtypeStruct
    length = max(system.env.episode_length - 1, 0)
    question = {name: shape((batch, length), jnp.int32) for name in ("items", "answers")}
    question |= {name: shape((batch,), jnp.int32) for name in ("length", "repeatable")}
    question |= {"excluded": shape((batch, excluded), jnp.int32), "available": shape((system.num_items,), jnp.bool_)}
    if system.history_width:
        question |= {kind: shape((batch, system.history_width), jnp.int32) for kind in KINDS}
    return question


def _items(recommender: Recommender) -> Mapping[str, np.ndarray]:
    """Returns ids, titles and categories of all items."""
    table, number = recommender.table, len(recommender.titles)
    categories = [""] * number if table is None else [", ".join(table.categories_of(item)) for item in range(number)]
    return {
        "ids": np.asarray(recommender.system.item_ids),
        "titles": np.asarray(recommender.titles, dtype=str),
        "categories": np.asarray(categories, dtype=str),
    }


def _users(recommender: Recommender) -> Mapping[str, np.ndarray]:
    """Returns what each user of the data did: items and codes of answers, and items by kind if they are needed."""
    system = recommender.system
    histories = system.histories_of(range(len(system.user_ids)))
    arrays = {"ids": np.asarray(system.user_ids)}
    arrays |= _concatenated("", [history.items for history in histories])
    codes = [system.codes_of(history.answers) for history in histories]
    arrays["answers"] = np.concatenate([np.zeros(0, np.int32), *codes]).astype(np.int32)
    kinds = [[kind[-system.history_width :] for kind in system.kinds_of(history)] for history in histories]
    for name, lists in zip(KINDS, zip(*kinds, strict=True), strict=False):
        arrays |= _concatenated(f"{name}_", list(lists))
    return arrays


def _concatenated(name: str, lists: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns lists behind one another, and where each begins."""
    begin = np.cumsum([0, *map(len, lists)])
    return {f"{name}items": np.concatenate([np.zeros(0, np.int32), *lists]).astype(np.int32), f"{name}begin": begin}


def _write_nodes(folder: Path, recommender: Recommender) -> None:
    """Writes of each tree level the most frequent items below its nodes, which say what a node is about."""
    system, levels = recommender.system, {}
    for level, number in enumerate(system.nodes_per_level):
        if number <= _NODES_SHOWN:
            below = [system.items_below(level, child)[:_SHOWN_BELOW] for child in range(number)]
            levels[f"level_{level}"] = padded(below, number, _SHOWN_BELOW)
    np.savez_compressed(folder / "nodes.npz", allow_pickle=False, **levels)
