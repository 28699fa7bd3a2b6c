"""A training command for tests of studies: no JAX, ten evaluations, a value that its settings decide.

`python -m fake_training rate=X pace=SECONDS hydra.run.dir=FOLDER`, or `resume=FOLDER`. The value is 1 - (rate - 0.3)^2
at the end. A rate above 0.8 diverges at the fourth evaluation, one of 0 is a mistake of the user.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

EVALUATIONS = 10


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    if "resume" in given:
        folder = Path(given["resume"].strip('"'))
        given = yaml.safe_load((folder / "config.yaml").read_text())
    else:
        folder = Path(given["hydra.run.dir"].strip('"'))
        (folder / "config.yaml").write_text(yaml.safe_dump(given))
    with (folder / "starts.txt").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    rate = float(given["rate"])
    if rate == 0:
        print("error: rate is 0\n  Choose another.")
        raise SystemExit(2)
    metrics = folder / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    for number in range(done + 1, EVALUATIONS + 1):
        time.sleep(float(given["pace"]))
        if rate > 0.8 and number == 4:
            print("error: training diverged: loss not finite in the steps up to 40\n  Lower the learning rate.")
            raise SystemExit(2)
        with metrics.open("a") as file:
            file.write(json.dumps({"step": 10 * number, "test_reward": (1 - (rate - 0.3) ** 2) * number / 10}) + "\n")
        if stopped:
            raise SystemExit(143)


if __name__ == "__main__":
    main()
