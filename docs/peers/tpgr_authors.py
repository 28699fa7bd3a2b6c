"""A training step of the TPGR authors' code (github.com/chenhaokun/TPGR), written for TensorFlow 1: episodes a second.

It runs unchanged, from a folder that holds a checkout, through the `compat.v1` interface of TensorFlow 2. What it would
read from files that earlier steps of its own made (the pickled environment, tree and pre-trained recurrent unit) is
handed to it in memory instead.
"""

from __future__ import annotations

import configparser
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow
from timing import SMOKE, Sizes, arguments, median_seconds

STATISTICS, REWARDS = 9, 10  # numbers of its user status; bins of rewards


def measure(source: Path, sizes: Sizes) -> dict[str, float]:
    """Returns episodes trained a second."""
    # The interface of TensorFlow 1.
    tensorflow.compat.v1.disable_v2_behavior()
    sys.modules["tensorflow"] = tensorflow.compat.v1
    sys.path.insert(0, str(source / "src"))
    # Its files, in a folder of their own: it reads relative to its working directory.
    config = configparser.ConfigParser()
    config.read(source / "config")
    children = int(np.ceil(np.sqrt(sizes.items)))
    _set_sizes(config, sizes, children)
    with tempfile.TemporaryDirectory() as folder:
        objects = _written(Path(folder), config, sizes, children)
        os.chdir(Path(folder) / "src")
        importlib.import_module("utils").pickle_load = lambda path: objects[Path(path).name]
        session = tensorflow.compat.v1.InteractiveSession()
        tpgr = importlib.import_module("tpgr").TPGR(config, session)
        seconds = median_seconds(tpgr.train, sizes.repeats)
    return {"": sizes.tpgr_users * sizes.tpgr_episodes / seconds}


def _set_sizes(config: configparser.ConfigParser, sizes: Sizes, children: int) -> None:
    """Sets its configuration: the state has as many numbers as ours, and layers are ours."""
    config["META"].update(
        {
            "ACTION_DIM": str(sizes.state - 2 * STATISTICS - REWARDS),
            "EPISODE_LENGTH": str(sizes.steps),
            "LOG_STEP": "1000000",
        }
    )
    config["ENV"]["RATING_FILE"] = "ratings"
    config["TPGR"].update(
        {
            "CHILD_NUM": str(children),
            "CLUSTERING_TYPE": "RANDOM",
            "HIDDEN_UNITS": ",".join(map(str, sizes.hidden)),
            "SAMPLE_EPISODES_PER_BATCH": str(sizes.tpgr_episodes),
            "SAMPLE_USERS_PER_BATCH": str(sizes.tpgr_users),
            "EVAL_BATCH_SIZE": "8",
        }
    )


def _written(folder: Path, config: configparser.ConfigParser, sizes: Sizes, children: int) -> dict[str, Any]:
    """Writes ratings and item embeddings to where it reads them; returns, by file, what it would unpickle."""
    for name in ("src", "data/rating", "data/run_time", "data/model", "data/result/result_log"):
        (folder / name).mkdir(parents=True)
    # Ratings: every item has one, and the file says how many users and items there are.
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(sizes.users), sizes.ratings_per_user)
    items = generator.integers(0, sizes.items, len(users))
    items[: sizes.items] = np.arange(sizes.items)
    values = generator.integers(1, 6, len(users)).astype(float)
    np.savetxt(folder / "data/rating/ratings", np.stack([users, items, values], 1), "%d", delimiter="\t")
    matrix = scipy.sparse.csr_matrix((values, (users, items)), (sizes.users, sizes.items)).todok()
    # Item embeddings, a random tree of depth 2, and the recurrent unit.
    width = sizes.state - STATISTICS
    action = width - STATISTICS - REWARDS
    embedding = 0.1 * generator.standard_normal((sizes.items, action))
    np.savetxt(folder / f"data/run_time/ratings_item_embedding_dim{action}", embedding, delimiter="\t")
    (folder / "data/run_time/ratings_env_objects").touch()
    codes = generator.permutation(children**2)[: sizes.items]
    item_of_code = np.full(children**2, -1)
    item_of_code[codes] = np.arange(sizes.items)
    tree = {"id_to_code": np.stack(np.divmod(codes, children), 1).astype(float), "code_to_id": item_of_code}
    shapes = [(width, width)] * 3 + [(width,)] * 2
    version = config["TPGR"]["TREE_VS"]
    vectors = config["TPGR"]["CLUSTERING_VECTOR_TYPE"].lower()
    return {
        "ratings_env_objects": {"r_matrix": matrix, "user_to_rele_num": {}},
        f"ratings_tree_model_{vectors}_random_c{children}_{version}": tree,
        f"ratings_rnn_model_{config['TPGR']['RNN_MODEL_VS']}": [
            (0.1 * generator.standard_normal(shape)).astype(np.float32) for shape in shapes
        ],
    }


def main() -> None:
    """Measures, and prints the version and the rates as JSON in the last line."""
    smoke, source = arguments()
    assert source is not None
    rates = measure(source.resolve(), SMOKE if smoke else Sizes())
    print(json.dumps({"version": f"code of 2019, TensorFlow {tensorflow.__version__}", "rates": rates}))


if __name__ == "__main__":
    main()
