"""Starts commands for tests without importing JAX and the project each time, which takes longer than most of them run.

`python tests/command_server.py` imports everything once and then forks a process per request: a line of JSON on stdin
with `folder`, `environment`, `module`, `arguments`, `stdout` and `stderr` (files); the answer is a line with the exit
code. A forked process is what `python -m MODULE ARGUMENTS` is after its imports: own arguments, folder, environment,
files, exit. JAX must not have been used before the fork, as its threads would be missing after it.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import sys
import warnings

from hydra.core.plugins import Plugins

COMMANDS = [f"{package}.{name}" for package in ("tpgr_jax", "hrlmg_jax") for name in ("train", "evaluate", "report")]
COMMANDS += ["hrlmg_jax.fit_simulator", "hrlmg_jax.gate", "hrlmg_jax.trust", "sim.data"]
IMPORTED_LATER = ["matplotlib.backends.backend_agg", "matplotlib.figure", "scipy.optimize", "scipy.stats", "sklearn"]


def next_request() -> dict | None:
    """Returns a request in a process forked for it; in the server itself None, when there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # JAX's, about forks
            child = os.fork()
        if not child:
            answers.close()
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
    return None


def become(request: dict) -> None:
    """Gives this process the folder, environment, files and arguments that are asked for."""
    files = [(os.devnull, os.O_RDONLY), *((request[name], os.O_WRONLY | os.O_APPEND) for name in ("stdout", "stderr"))]
    for number, (path, flags) in enumerate(files):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path.insert(0, request["folder"])
    sys.argv = [request["module"], *request["arguments"]]


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, whose folders have the names of our packages
    for name in (*COMMANDS, *IMPORTED_LATER):
        importlib.import_module(name)
    Plugins.instance()  # looks for Hydra's
    for command in COMMANDS:  # each is to run as __main__
        package, _, name = command.partition(".")
        del sys.modules[command]
        with contextlib.suppress(AttributeError):
            delattr(sys.modules[package], name)
    gc.freeze()  # what is never collected is never copied
    if request := next_request():
        become(request)
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
