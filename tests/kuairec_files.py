"""Files in the layout of KuaiRec's matrices."""

from pathlib import Path

import numpy as np

SMALL = "KuaiRec 2.0/data/small_matrix.csv"
BIG = "KuaiRec 2.0/data/big_matrix.csv"
_HEAD = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio"
_BEGIN = 1_593_898_068


def watch_ratios(users: int, items: int) -> np.ndarray:
    """Returns [users, items] how long each video was watched over its length, NaN for one pair that nobody knows."""
    ratios = np.random.default_rng(0).choice([0.1, 0.3, 0.7, 1.2, 2.5], (users, items))
    ratios[1, 2] = np.nan
    return ratios


def write_matrix(root: Path, name: str, ratios: np.ndarray, without_time: int = 0) -> Path:
    """Writes the known pairs, shuffled, a minute apart; the first rows have no time."""
    users, items = np.nonzero(~np.isnan(ratios))
    lines = [_HEAD]
    for number, place in enumerate(np.random.default_rng(1).permutation(len(users))):
        user, item = users[place], items[place]
        ratio, second = ratios[user, item], _BEGIN + 60 * number
        moment = np.datetime64(second, "s").astype(str).replace("T", " ")
        times = ",," if number < without_time else f"{moment}.378,{moment[:10].replace('-', '')}.0,{second}.378"
        lines.append(f"{10 * user + 4},{100 + item},{round(6000 * ratio)},6000,{times},{ratio}")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
