"""What the presets of `conf/data` are: for `python -m sim.data list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from harness.commands.command import CONFIGURATION

NOT_LISTED = ("base", "log_base", "auto")
"""Files of `conf/data` that are no data sets."""
RATINGS, EVENTS = "ratings", "event logs"


class About(NamedTuple):
    """What a preset's yaml does not say.

    Attributes:
        what: What the data are.
        size: How many users, items and rows there are.
        licence: Under which terms, in short; the data set's own text counts.
        layout_read: Whether its real files (or their heads) have been read here. The layouts of the others are those
            that their documentation and public loaders state, checked on generated files.
    """

    what: str
    size: str
    licence: str
    layout_read: bool = False


_MOVIELENS = "research, not commercial; see its README"
_KAGGLE = "as on its page at kaggle.com"
ABOUT = {
    # Ratings
    "synthetic": About("generated ratings", "data.size", "none: it is generated", True),
    "ratings_file": About("your own ratings", "", "yours", True),
    "served_ratings": About("ratings that a server collected", "", "yours", True),
    "movielens_100k": About("ratings of films", "943 users, 1,682 items, 100,000 ratings", _MOVIELENS),
    "movielens_1m": About("ratings of films", "6,040 users, 3,706 items, 1,000,209 ratings", _MOVIELENS, True),
    "movielens_10m": About("ratings of films", "69,878 users, 10,677 items, 10,000,054 ratings", _MOVIELENS),
    "movielens_20m": About("ratings of films", "138,493 users, 26,744 items, 20,000,263 ratings", _MOVIELENS),
    "movielens_25m": About("ratings of films", "162,541 users, 25,000,095 ratings", _MOVIELENS),
    "movielens_32m": About("ratings of films", "200,948 users, 32,000,204 ratings", _MOVIELENS),
    "movielens_latest_small": About("ratings of films", "610 users, 9,724 items, 100,836 ratings", _MOVIELENS, True),
    "netflix": About("ratings of films", "480,189 users, 17,770 items, 100,480,507 ratings", "of the contest"),
    "amazon_reviews_2023": About(
        "ratings of one category of products", "33 categories of up to 30 million ratings", "none stated; to be cited"
    ),
    "amazon_reviews_2023_jsonl": About(
        "the same from the raw reviews", "33 categories of up to 30 million reviews", "none stated; to be cited"
    ),
    "book_crossing": About("ratings of books", "1,149,780 rows, of which 433,671 are ratings", "research, to be cited"),
    "yelp": About("reviews of businesses", "6,990,280 reviews", "academic use; of the Yelp Dataset"),
    "goodreads": About(
        "books on shelves, partly rated", "876,145 users, 2,360,650 items, 228,648,342 rows", "academic use"
    ),
    "steam_200k": About("purchases and play of games", "200,000 rows", _KAGGLE),
    "steam_recommendations": About("recommendations of games", "41 million rows", "CC0"),
    "lastfm_hetrec": About("artists that people listen to", "1,892 users, 17,632 items, 92,834 rows", "not commercial"),
    "recbole": About("any atomic .inter file of RecBole", "", "of the data set"),
    "kuairec_ratings": About(
        "short videos, watched by everyone: ratings by how long",
        "1,411 users, 3,327 items, 4,676,570 rows",
        "CC BY-SA 4.0",
    ),
    # Event logs
    "synthetic_funnel": About("a generated log", "data.size", "none: it is generated", True),
    "events_csv": About("your own log", "", "yours", True),
    "served_log": About("what a server decided, and the answers", "", "yours", True),
    "ratings_as_events": About("your own ratings as answers", "", "yours", True),
    "movielens_1m_as_events": About("the ratings of movielens_1m as answers", "1,000,209 rows", _MOVIELENS, True),
    "movielens_latest_small_as_events": About(
        "the ratings of the small set as answers", "100,836 rows", _MOVIELENS, True
    ),
    "retailrocket": About("a shop: views, baskets, purchases", "2,756,101 events", "CC BY-NC-SA 4.0"),
    "rees46": About("a shop: views, baskets, purchases", "42 million events in October 2019", "to be cited"),
    "yoochoose": About("a shop: clicks and purchases in sessions", "34,154,697 events", "CC BY-NC-ND 4.0"),
    "jdata": About("a shop: browsing, baskets, orders", "three months", "contestants only", True),
    "diginetica": About("searches with what they showed", "half a year", "of the contest"),
    "kuairand": About("short videos as they were shown", "1,000 users, 11,713,045 impressions (1K)", "CC BY-SA 4.0"),
    "kuairec": About(
        "short videos and how long they were watched", "7,176 users, 10,728 items, 12,530,806 rows", "CC BY-SA 4.0"
    ),
    "kuairec_small": About(
        "short videos, watched by everyone: all answers", "1,411 users, 3,327 items, 4,676,570 rows", "CC BY-SA 4.0"
    ),
    "taobao": About("a shop: views, carts, purchases", "987,994 users, 100,150,807 events", "CC BY-NC-SA 4.0"),
    "otto": About("a shop: clicks, carts, orders", "12,899,779 sessions, 216,716,096 events", "CC BY 4.0", True),
    "mind": About("news as they were shown", "1 million users (small: 50,000)", "research, not commercial"),
    "open_bandit": About("fashion as it was shown, with propensities", "26 million impressions", "CC BY 4.0"),
    "lastfm_1k": About("songs listened to", "992 users, 19,150,868 events", "not commercial"),
}


def presets() -> list[dict[str, Any]]:
    """Returns every data set that can be chosen by name: name, kind, what, size, licence, files and layout_read."""
    found = []
    for path in sorted(Path(CONFIGURATION, "data").glob("*.yaml")):
        if path.stem not in NOT_LISTED:
            settings = OmegaConf.load(path)
            parents = {"log_base", "ratings_as_events", "kuairec"}
            kind = EVENTS if parents & set(OmegaConf.select(settings, "defaults")) else RATINGS
            about = ABOUT[path.stem]
            url, obtain = (OmegaConf.select(settings, key) for key in ("url", "obtain"))
            files = f"downloaded from {url}" if url else obtain or ""
            found.append({"name": path.stem, "kind": kind, **about._asdict(), "files": files})
    return found


def describe_presets(found: list[dict[str, Any]]) -> str:
    """Formats the result of `presets` for people."""
    blocks = []
    for kind in (RATINGS, EVENTS):
        blocks.append(f"{kind} ({'TPGR' if kind == RATINGS else 'HRL-MG'})")
        for preset in found:
            if preset["kind"] == kind:
                size = f"; {preset['size']}" if preset["size"] else ""
                read = "read from real files" if preset["layout_read"] else "as documented, tried on generated files"
                blocks.append(f"  data={preset['name']}\n      {preset['what']}{size}")
                blocks.extend(f"      files: {preset['files']}" for _ in [0] if preset["files"])
                blocks.append(f"      licence: {preset['licence']}; layout: {read}")
    return "\n".join(blocks)
