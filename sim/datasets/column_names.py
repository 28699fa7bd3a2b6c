"""What columns and events are usually called, for `sim.datasets.auto`."""

from __future__ import annotations

import re

_COLUMNS = {
    "user": "user userid uid visitorid visitor customerid customer memberid accountid reviewerid profileid",
    "item": """
        item itemid iid movieid movie productid product parentasin asin skuid sku bookid book isbn businessid videoid
        articleid aid newsid songid trackid artistid gameid appid adid
    """,
    "rating": """
        rating ratings stars star score overall rate bookrating grade grades note mark points userrating userscore
        reviewscore reviewrating ratingvalue
    """,
    "time": "timestamp time ts datetime eventtime unixreviewtime createdat when date",
    "feedback": """
        event eventtype behavior behaviour behaviortype action type interaction feedback click clicked isclick
    """,
    "session": "session sessionid usersession visitid",
}
ROLES = {role: names.split() for role, names in _COLUMNS.items()}
"""Names of columns by what they hold, as `plain` gives them, the surest first."""

_NO_RATINGS = """
    quantity qty count counts amount number num price size weight position rank slot age hour day weekday month level
    version duration length category genre gender type status
"""
NUMBERS_OF_OTHER_THINGS = frozenset(_NO_RATINGS.split())
"""Columns of a few small numbers that are no ratings, as `plain` gives them."""

_EVENTS = {
    "skip": "skip impression impressions show shown exposure display 0",
    "click": """
        click clicks view views pv pageview detail detailpageview cart carts addtocart fav favorite like play browse 1
    """,
    "order": "order orders purchase buy transaction pay checkout conversion",
    "ignore": "removefromcart remove",
}
ANSWERS = {name: answer for answer, names in _EVENTS.items() for name in names.split()}
"""What events mean, by their names as `plain` gives them."""


def plain(text: str) -> str:
    """Returns a name without case, blanks, dots and the like."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
