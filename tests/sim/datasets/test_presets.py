"""Each preset reads a file in the exact layout of its data set; the list of presets knows them all."""

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.commands.command import CONFIGURATION
from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from sim import data as command
from sim.datasets.items import ItemsConfig, load_items
from sim.datasets.log_settings import LogConfig
from sim.datasets.presets import ABOUT, NOT_LISTED, presets
from sim.datasets.rating_settings import DataConfig
from sim.datasets.ratings import load_dataset
from sim.files.event_readers import EventColumns, read_events

NO_COUNTS = ["data.expected_users=null", "data.expected_items=null", "data.expected_ratings=null"]
MOVIELENS = "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n1,306,3.5,1147868817\n2,296,0.5,1141415820\n"
MOVIELENS_RATINGS = [(1, 296, 5, 1147880044), (1, 306, 3.5, 1147868817), (2, 296, 0.5, 1141415820)]
AMAZON = """\
user_id,parent_asin,rating,timestamp
AGKHLEW2SOWHNMFQIJGBECAF7INQ,B07DJWBYKP,2.0,1588687728923
AGKHLEW2SOWHNMFQIJGBECAF7INQ,B07DJWBYKP,4.0,1588687729923
AGCI7FAH4GL5FI65HYLKWTMFZ2CQ,0449819906,5.0,1658185117948
"""
AMAZON_RATINGS = [
    ("AGCI7FAH4GL5FI65HYLKWTMFZ2CQ", "0449819906", 5, 1658185117),
    ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B07DJWBYKP", 4, 1588687729),
]


def amazon_review(line: str) -> str:
    """A line of the raw reviews that rates as a line of the file of ratings alone does."""
    user, item, rating, time = line.split(",")
    review = {
        "rating": float(rating),
        "title": 'Such a "lovely" scent',
        "text": "I, for one,\nlike it; caf\xe9.",
        "images": [{"small_image_url": "https://x/y.jpg", "attachment_type": "IMAGE"}],
        "asin": "B00YQ6X8EO",
        "parent_asin": item,
        "user_id": user,
        "timestamp": int(time),
        "helpful_vote": 0,
        "verified_purchase": True,
    }
    return json.dumps(review)


YELP = [
    ("KU_O5udG6zpxOg-VcAEodg", "mh_-eMZ6K5RLWhZyISBhwA", "XQfwVwDr-v0ZS3_CbbE5Xw", 3.0, "2018-07-07 22:09:11"),
    ("BiTunyQ73aT9WBnpR9DZGw", "OyoGAe7OKpv6SyGZT5g77Q", "7ATYjTIgM3jUlt4UM3IypQ", 5.0, "2012-01-03 15:28:18"),
]
YELP_KEYS = ("review_id", "user_id", "business_id", "stars", "date")
YELP_TEXT = {"useful": 0, "funny": 0, "cool": 0, "text": 'If you decide to eat here,\njust be aware it is "slow".'}

RATINGS = {
    "movielens_25m": ("ml-25m/ratings.csv", MOVIELENS, MOVIELENS_RATINGS),
    "movielens_32m": ("ml-32m/ratings.csv", MOVIELENS.replace("\n", "\r\n"), MOVIELENS_RATINGS),
    "amazon_reviews_2023": ("amazon-reviews-2023/All_Beauty.csv", AMAZON, AMAZON_RATINGS),
    "amazon_reviews_2023_jsonl": (
        "amazon-reviews-2023/All_Beauty.jsonl",
        "".join(f"{amazon_review(line)}\n" for line in AMAZON.splitlines()[1:]),
        AMAZON_RATINGS,
    ),
    "book_crossing": (
        "book-crossing/BX-Book-Ratings.csv",
        b'"User-ID";"ISBN";"Book-Rating"\r\n"276725";"034545104X";"0"\r\n"276726";"0155061224";"5"\r\n'
        b'"276729";"052165615X";"3"\r\n"276729";"\xd6 90-6";"10"\r\n"276736";"a\\"b";"1"\r\n',
        [(276726, "0155061224", 5), (276729, "052165615X", 3), (276729, "\xd6 90-6", 10), (276736, 'a"b', 1)],
    ),
    "goodreads": (
        "goodreads/goodreads_interactions.csv",
        "user_id,book_id,is_read,rating,is_reviewed\n0,948,1,5,0\n0,913,0,0,1\n1,948,1,3,0\n",
        [(0, 948, 5), (1, 948, 3)],
    ),
    "steam_200k": (
        "steam/steam-200k.csv",
        '151603712,"The Elder Scrolls V Skyrim",purchase,1.0,0\n151603712,"The Elder Scrolls V Skyrim",play,273.0,0\n'
        '59945701,"Tropico 3, Gold",purchase,1.0,0\n',
        [(59945701, "Tropico 3, Gold", 1), (151603712, "The Elder Scrolls V Skyrim", 2)],
    ),
    "steam_recommendations": (
        "steam/recommendations.csv",
        "app_id,helpful,funny,date,is_recommended,hours,user_id,review_id\n"
        "975370,0,0,2022-12-12,true,36.3,51580,0\n304390,4,0,2017-02-17,false,11.5,2586,1\n",
        [(2586, 304390, 0, 1487289600), (51580, 975370, 1, 1670803200)],
    ),
    "yelp": (
        "yelp/yelp_academic_dataset_review.json",
        "".join(f"{json.dumps(dict(zip(YELP_KEYS, row, strict=True)) | YELP_TEXT)}\n" for row in YELP),
        [
            ("OyoGAe7OKpv6SyGZT5g77Q", "7ATYjTIgM3jUlt4UM3IypQ", 5, 1325604498),
            ("mh_-eMZ6K5RLWhZyISBhwA", "XQfwVwDr-v0ZS3_CbbE5Xw", 3, 1531001351),
        ],
    ),
    "lastfm_hetrec": (
        "hetrec2011-lastfm-2k/user_artists.dat",
        "userID\tartistID\tweight\r\n2\t51\t13883\r\n2\t52\t11690\r\n3\t51\t1\r\n",
        [(2, 51, 1), (2, 52, 1), (3, 51, 1)],
    ),
}
KUAIREC_SMALL = """\
user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio
14,148,4381,6067,2020-07-05 05:27:48.378,20200705.0,1593898068.378,0.7221031811438932
14,183,11635,6100,2020-07-05 05:28:00.057,20200705.0,1593898080.057,1.907377049180328
14,3649,22422,10867,,,,2.063311861599338
19,148,0,6067,2020-07-05 05:29:09.479,20200705.0,1593898149.479,0.0
"""
RATINGS["kuairec_ratings"] = (
    "KuaiRec 2.0/data/small_matrix.csv",
    KUAIREC_SMALL,
    [(14, 148, 3), (14, 183, 4), (14, 3649, 5), (19, 148, 1)],
)
RECBOLE = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n186\t302\t3\t891717742\n"
)

TAOBAO = """\
1,2268318,2520377,pv,1511544070
1,2333346,2520771,fav,1511561733
1,2576651,149192,cart,-2134949234
2,2268318,2520377,buy,2122867355
2,3830808,4181361,buy,1511572885
"""
OTTO = """\
{"session":0,"events":[{"aid":1517085,"ts":1659304800025,"type":"clicks"},{"aid":1563459,"ts":1659304904511,"type":"carts"}]}
{"session":1,"events":[{"aid":424964,"ts":1659304800025,"type":"orders"}]}
"""
MIND_TRAIN = (
    "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n2\tU9\t11/14/2019 12:00:01 PM\t\tN35729-0\n"
)
MIND_DEV = "1\tU9\t11/15/2019 12:30:00 AM\tN1\tN78206-0 N26368-1 N-1-0\n"
BANDIT = """\
,timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0
0,2019-11-24 00:00:00.004101+00:00,14,1,0,0.0125,81ce123cbb5bd8ce818f60fb3586bba5,0.0
1,2019-11-24 00:00:00.006042+00:00,14,2,1,0.25,81ce123cbb5bd8ce818f60fb3586bba5,0.0
"""
KUAIREC = """\
user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio
0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.273396521579093
0,9598,13665,6000,2020-07-05 00:13:41.297,20200705,1593879221.297,2.2775
"""
LASTFM_1K = """\
user_000001\t2009-05-04T23:08:57Z\tf1b1cf71-bd35-4e99-8624-24a6e15f133a\tDeep Dish\t\tLive (Pacha Ibiza)-09-28-2007
user_000001\t2009-05-04T13:54:10Z\t\t"Weird Al" Yankovic\t\t"Fat"
user_000002\t2009-05-04T13:52:04Z\t\tCaf\xe9 "Tacvba\t\tEres
"""
EVENTS: dict[str, tuple[dict[str, str], list[tuple]]] = {
    "taobao": (
        {"taobao/UserBehavior.csv": TAOBAO},
        [(1, 2268318, 1, 1511544070), (1, 2333346, 1, 1511561733), (2, 3830808, 2, 1511572885)],
    ),
    "otto": (
        {"otto/train.jsonl": OTTO},
        [(0, 1517085, 1, 1659304800), (0, 1563459, 1, 1659304904), (1, 424964, 2, 1659304800)],
    ),
    "mind": (
        {"MINDsmall_train/behaviors.tsv": MIND_TRAIN, "MINDsmall_dev/behaviors.tsv": MIND_DEV},
        [
            ("U13740", "N35729", 0, 1573463158),
            ("U13740", "N55689", 1, 1573463158),
            ("U9", "N-1", 0, 1573777800),
            ("U9", "N26368", 1, 1573777800),
            ("U9", "N35729", 0, 1573732801),
            ("U9", "N78206", 0, 1573777800),
        ],
    ),
    "open_bandit": (
        {"obd/random/all/all.csv": BANDIT},
        [(0, 14, 0, 1574553600), (1, 14, 1, 1574553600)],
    ),
    "kuairec": (
        {"KuaiRec 2.0/data/big_matrix.csv": KUAIREC},
        [(0, 3649, 0, 1593878903), (0, 9598, 1, 1593879221)],
    ),
    "kuairec_small": (
        {"KuaiRec 2.0/data/small_matrix.csv": KUAIREC_SMALL},  # a row without a time is left out
        [(14, 148, 0, 1593898068), (14, 183, 0, 1593898080), (19, 148, 0, 1593898149)],
    ),
    "lastfm_1k": (
        {"lastfm-dataset-1K/userid-timestamp-artid-artname-traid-traname.tsv": LASTFM_1K},
        [
            ("user_000001", '"Weird Al" Yankovic', 1, 1241445250),
            ("user_000001", "Deep Dish", 1, 1241478537),
            ("user_000002", 'Caf\xe9 "Tacvba', 1, 1241445124),
        ],
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tmp_path / "cache"))


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def ratings(root: Path, name: str, *overrides: str) -> list[tuple]:
    """The table that a preset reads, as rows of user, item, rating and time if there is one."""
    values = composed_values("data_statistics", [f"data={name}", f"data.root={root}", *NO_COUNTS, *overrides])["data"]
    table = load_dataset(read_settings(DataConfig, values, "data"))
    users = np.repeat(table.user_ids, np.diff(table.indptr))
    columns = [users, table.item_ids[table.items], table.rating_values[table.codes]]
    return list(zip(*(column.tolist() for column in [*columns, *filter_none(table.timestamps)]), strict=True))


def filter_none(column: np.ndarray | None) -> list[np.ndarray]:
    return [] if column is None else [column]


def events(root: Path, name: str) -> tuple[EventColumns, list[tuple]]:
    """What a preset reads, and its rows of user, item, answer and time, sorted."""
    values = composed_values("data_statistics", [f"data={name}", f"data.root={root}"])["data"]
    config = read_settings(LogConfig, values, "data")
    found = read_events(config.reader, config.stored_sources(), config.event_layout(), config.limits)
    columns = (found.user_ids[found.users], found.item_ids[found.items], found.feedback, found.times)
    return found, sorted(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("name", RATINGS)
def test_presets_of_ratings_read_their_layout(tmp_path, name):
    path, text, expected = RATINGS[name]
    write(tmp_path / path, text)
    assert ratings(tmp_path, name) == expected


@pytest.mark.parametrize("name", EVENTS)
def test_presets_of_events_read_their_layout(tmp_path, name):
    files, expected = EVENTS[name]
    for path, text in files.items():
        write(tmp_path / path, text)
    assert events(tmp_path, name)[1] == expected


def test_propensities_of_open_bandit_are_kept(tmp_path):
    write(tmp_path / "obd/random/all/all.csv", BANDIT)
    found, _ = events(tmp_path, "open_bandit")
    assert found.shown_probability is not None
    assert found.shown_probability.tolist() == [0.0125, 0.25]


def test_recbole(tmp_path):
    write(tmp_path / "ml.inter", RECBOLE)
    path = f"data.path={tmp_path / 'ml.inter'}"
    assert ratings(tmp_path, "recbole", path) == [(186, 302, 3, 891717742), (196, 242, 3, 881250949)]
    write(tmp_path / "clicks.inter", "user_id:token\titem_id:token\n1\t5\n2\t5\n")
    bare = [f"data.path={tmp_path / 'clicks.inter'}", "data.rating_column=null", "data.timestamp_column=null"]
    assert ratings(tmp_path, "recbole", *bare) == [(1, 5, 1), (2, 5, 1)]


def test_archives_are_read_without_unpacking(tmp_path):
    with zipfile.ZipFile(tmp_path / "BX-CSV-Dump.zip", "w") as archive:
        archive.writestr("BX-Book-Ratings.csv", RATINGS["book_crossing"][1])
        archive.writestr("BX-Books.csv", '"ISBN";"Book-Title"\n"052165615X";"Help!: \\"Level 1\\""\n')
    assert ratings(tmp_path, "book_crossing") == RATINGS["book_crossing"][2]
    (path, text), expected = next(iter(EVENTS["lastfm_1k"][0].items())), EVENTS["lastfm_1k"][1]
    write(tmp_path / path, text)
    with tarfile.open(tmp_path / "lastfm-dataset-1K.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / path, path)
    (tmp_path / path).unlink()
    assert events(tmp_path, "lastfm_1k")[1] == expected


ITEMS = {
    "book_crossing": (
        "book-crossing/BX-Books.csv",
        b'"ISBN";"Book-Title";"Book-Author"\r\n"052165615X";"Help!: \\"Level 1\\" \xd6";"P. Prowse"\r\n',
        ("052165615X", 'Help!: "Level 1" \xd6', []),
    ),
    "yelp": (
        "yelp/yelp_academic_dataset_business.json",
        json.dumps({"business_id": "7ATYjTIgM3jUlt4UM3IypQ", "name": "Caf\xe9", "categories": "Bars, Food"}) + "\n",
        ("7ATYjTIgM3jUlt4UM3IypQ", "Caf\xe9", ["Bars", "Food"]),
    ),
    "steam_recommendations": (
        "steam/games.csv",
        "app_id,title,date_release,win\n975370,Dwarf Fortress,2022-12-06,true\n",
        (975370, "Dwarf Fortress", []),
    ),
    "lastfm_hetrec": (
        "hetrec2011-lastfm-2k/artists.dat",
        'id\tname\turl\tpictureURL\n51\t"Weird Al" Yankovic\thttp://x\thttp://y\n',
        (51, '"Weird Al" Yankovic', []),
    ),
    "mind": (
        "MINDsmall_dev/news.tsv",
        'N26368\tlifestyle\tlifestyleroyals\tThe "Brands" Queen Elizabeth Swears By\tShop\thttps://x\t[]\t[]\n',
        ("N26368", 'The "Brands" Queen Elizabeth Swears By', ["lifestyle"]),
    ),
}


@pytest.mark.parametrize("name", ITEMS)
def test_presets_bring_their_item_tables(tmp_path, name):
    files = EVENTS[name][0] if name in EVENTS else {RATINGS[name][0]: RATINGS[name][1]}
    path, text, (item, title, categories) = ITEMS[name]
    for place, content in [*files.items(), (path, text)]:
        write(tmp_path / place, content)
    values = composed_values("data_statistics", [f"data={name}", f"data.root={tmp_path}"])
    config = read_settings(LogConfig if name in EVENTS else DataConfig, values["data"], "data")
    table = load_items(read_settings(ItemsConfig, values["items"], "items"), config, np.array([item]), False)
    assert table is not None
    assert (table.titles, table.categories_of(0)) == ((title,), categories)


def test_missing_files_say_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match=r"(?s)no files.*BX-Book-Ratings.*Get BX-CSV-Dump"):
        ratings(tmp_path, "book_crossing")


@pytest.mark.parametrize("between", ["[2017-11-25]", "[2017-12-04,2017-11-25]", "[x,y]"])
def test_impossible_times(between):
    values = composed_values("data_statistics", ["data=taobao", f"data.times_between={between}"])["data"]
    with pytest.raises(UserError, match=r"(?s)data\.times_between.*two dates"):
        read_settings(LogConfig, values, "data")


def test_every_preset_is_listed():
    names = {path.stem for path in Path(CONFIGURATION, "data").glob("*.yaml")} - set(NOT_LISTED)
    assert set(ABOUT) == names == {preset["name"] for preset in presets()}
    own = {
        "synthetic",
        "synthetic_funnel",
        "ratings_file",
        "events_csv",
        "ratings_as_events",
        "served_log",
        "served_ratings",
    }
    assert {preset["name"] for preset in presets() if not preset["files"]} == own
    read = {name for name, about in ABOUT.items() if about.layout_read}
    assert read >= {"movielens_1m", "movielens_latest_small", "jdata"}
    assert read & {*RATINGS, *EVENTS} == {"otto"}


def test_the_list(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["data", "list"])
    command.main()
    text = capsys.readouterr().out
    assert "data=movielens_1m\n" in text
    assert "https://files.grouplens.org/datasets/movielens/ml-1m.zip" in text
    monkeypatch.setattr("sys.argv", ["data", "list", "json=true"])
    command.main()
    assert {preset["name"] for preset in json.loads(capsys.readouterr().out)} == set(ABOUT)
