"""Names of landmarks, from GLDv2's table into the dataset."""
import pytest

from arcshard.console import UserError
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from preprocess.samples.classes import names_digest, read_names
from shards import Dataset

NAMES = {"1000": "http://commons.wikimedia.org/wiki/Category:Ch%C3%A2teau,_d%27If", "1007": '"quoted"\nname', "9": "-"}


def test_the_table_of_gldv2_is_read(tmp_path):
    table = tmp_path / "train_label_to_category.csv"
    table.write_text("landmark_id,category\n1,http://x/Category:A\n01,B\n")
    assert read_names(table) == {"1": "http://x/Category:A", "01": "B"}


def test_a_landmark_with_two_names_is_refused(tmp_path):
    table = tmp_path / "names.csv"
    table.write_text("landmark_id,category\n7,A\n8,B\n7,C\n")
    with pytest.raises(UserError, match="names.csv has several names for landmark 7: remove"):
        read_names(table)


def test_names_are_packed_stay_and_count_as_an_option(photos, tmp_path):
    samples = photos[1][photos[1]["label"].isin([0, 1]) & photos[1]["split"].isin(["train"])]
    few, more = samples[samples["label"] == 0], samples
    arguments = [photos[0]], tmp_path / "out", PackOptions(), Engine()
    assert pack(few, *arguments, names=NAMES)
    assert Dataset(tmp_path / "out").landmark_names == {"1000": NAMES["1000"]}
    assert not pack(few, *arguments, names=NAMES)
    with pytest.raises(UserError, match="packed with other options .names_sha256 was .*, is None.*: repeat those"):
        pack(few, *arguments)
    assert pack(more, *arguments, append=True, names={"1000": "another", "1007": NAMES["1007"]})
    assert Dataset(tmp_path / "out").landmark_names == {"1000": NAMES["1000"], "1007": NAMES["1007"]}


def test_the_digest_knows_any_name():
    assert names_digest({}) is None
    assert names_digest(NAMES) == names_digest(dict(reversed(NAMES.items()))) != names_digest(NAMES | {"9": "+"})
