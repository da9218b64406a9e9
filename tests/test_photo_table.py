"""What is known of the raw photos is read from every table and tree that people have."""
import os
import string

import fsspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcshard.console import UserError
from preprocess.images.formats import PHOTO_ENDINGS
from preprocess.samples.raw_tables import Columns, ids_from_paths, read_class_folders, read_photos
from shards.format import is_key


def rows(table: pd.DataFrame, *columns: str) -> list[tuple[str, ...]]:
    return list(zip(*(table[column] for column in columns)))


@pytest.mark.parametrize("text", [
    "id,landmark_id\na,1\nb,7\nc,7\n",
    "id,url,landmark_id\na,http://x/y.jpg,1\nb,,7\nc,,7\n",
    "landmark_id,images\n1,a\n7,b c\n",
    "landmark_id,images\n1, a \n7,b  c\n9,\n",
], ids=["Kaggle's train.csv", "train.csv", "train_clean.csv", "untidy train_clean.csv"])
def test_the_tables_of_google_landmarks_are_known_by_their_columns(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert rows(read_photos(tmp_path / "t.csv", Columns()), "id", "landmark_id") == [("a", "1"), ("b", "7"), ("c", "7")]


def test_any_table_by_the_names_of_its_columns(tmp_path):
    table = pd.DataFrame({"name": ["a", "b"], "class": [3, 4], "file": ["x/1.jpg", "x/2.jpg"], "id": ["k", "l"]})
    table.to_parquet(tmp_path / "t.parquet")
    photos = read_photos(tmp_path / "t.parquet", Columns("name", "class", "file"))
    assert rows(photos, "id", "landmark_id", "path") == [("a", "3", "x/1.jpg"), ("b", "4", "x/2.jpg")]
    photos = read_photos(tmp_path / "t.parquet", Columns(None, "class", "file"))
    assert rows(photos, "id", "landmark_id") == [("k", "3"), ("l", "4")]
    table.drop(columns="id").to_parquet(tmp_path / "t.parquet")
    photos = read_photos(tmp_path / "t.parquet", Columns(None, "class", "file"))
    assert rows(photos, "id", "landmark_id") == [("x-1-" + photos["id"][0][-16:], "3"),
                                                 ("x-2-" + photos["id"][1][-16:], "4")]
    photos = read_photos(tmp_path / "t.parquet", Columns(None, "class", "name"))
    assert rows(photos, "id", "path") == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize("text, sentence", [
    ("file,landmark_id\n,1\n", "1 photos of {} have no path: fill them in, or remove the column path"),
    ('file,landmark_id\n"a\nb",1\n', "{} has a path with a control character, 'a\\nb' (1 such rows): rename those"),
])
def test_unfit_paths_are_refused(tmp_path, text, sentence):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read_photos(tmp_path / "t.csv", Columns(path="file"))
    assert str(error.value) == sentence.format(tmp_path / "t.csv")


def test_ids_of_paths_keep_what_is_a_key_already():
    paths = ["a.jpg", "b.JPG", "A.jpg", "c", "d.jpg", "d.png", "x/a.jpg", "é.jpg", "n.o.jpg", "y" * 200 + ".jpg"]
    ids = ids_from_paths(pd.Series(paths)).tolist()
    stems = [id[:-17] if len(id) > 16 else id for id in ids]
    assert stems == ["a", "b", "a", "c", "d", "d", "x-a", "-", "n-o", "y" * 79]
    assert ids[4] == "d-f76903c87d0f34af"  # what a table once named, later ones must name alike


@settings(max_examples=200)
@given(st.lists(st.one_of(st.text(st.sampled_from("aA./-é"), min_size=1, max_size=6),
                          st.text(min_size=1, max_size=120)), min_size=1, max_size=30, unique=True))
def test_ids_of_paths_are_keys_and_differ(paths):
    paths = [path for path in paths if path.isprintable()] or ["a"]
    ids = ids_from_paths(pd.Series(paths, dtype="str"))
    assert ids.map(is_key).all() and ids.is_unique
    assert ids_from_paths(pd.Series(paths[::-1], dtype="str")).tolist() == ids.tolist()[::-1]


def tree(folder, *paths: str) -> str:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")
    return str(folder)


def test_each_folder_of_a_tree_is_a_class(tmp_path):
    """Any image extension in any case, at any depth; other files are counted, but for hidden ones."""
    kinds = ["cat/1.JPEG", *(f"cat/1{ending}" for ending in PHOTO_ENDINGS)]
    others_there = ["dog/notes.txt", "README.md", ".git/x.jpg", "dog/._1.jpg"]
    where = tree(tmp_path / "tree", *kinds, "dog/deep/er/1.jpg", *others_there)
    photos, others = read_class_folders(where)
    assert photos["path"].tolist() == sorted([*kinds, "dog/deep/er/1.jpg"]) and others == 2
    assert photos["landmark_id"].tolist() == ["cat"] * len(kinds) + ["dog"]
    assert photos["id"].str.fullmatch("(cat-1|dog-deep-er-1)-[0-9a-f]{16}").all() and photos["id"].is_unique


def test_linked_classes_are_followed(tmp_path):
    tree(tmp_path / "all", "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "some").mkdir()
    os.symlink(tmp_path / "all" / "dog", tmp_path / "some" / "dog")
    assert read_class_folders(str(tmp_path / "some"))[0]["path"].tolist() == ["dog/1.jpg"]


@pytest.mark.parametrize("link, to", [("a/loop", ".."), ("b", "a"), ("a/2.jpg", "gone")], ids=["loop", "class", "dead"])
@pytest.mark.parametrize("protocol", ["", "file://"])
def test_links_that_would_give_a_photo_twice_or_none_are_named(tmp_path, protocol, link, to):
    where = tree(tmp_path / "tree", "a/1.jpg", "c/1.jpg")
    (tmp_path / "tree" / link).symlink_to(to)
    with pytest.raises(UserError, match=f"^the link {where}/{link} leads to "):
        read_class_folders(f"{protocol}{where}")


def test_a_tree_behind_a_url(tmp_path):
    memory = fsspec.filesystem("memory")
    for path in ("b/1.jpg", "a/x/2.PNG", "a/readme", "a/._2.png", ".trash/3.png"):
        memory.pipe(f"/tree/{path}", b"")
    photos, others = read_class_folders("memory://tree")
    assert rows(photos, "path", "landmark_id") == [("a/x/2.PNG", "a"), ("b/1.jpg", "b")] and others == 1
    local, _ = read_class_folders(f"file://{tree(tmp_path / 'tree', 'b/1.jpg', 'a/x/2.PNG')}")
    assert local.equals(photos)


@pytest.mark.parametrize("paths, sentence", [
    ([], "{} has no photo: check --image-folder, which needs a folder of photos for each class"),
    (["cat/notes.txt"], "{} has no photo: check --image-folder, which needs a folder of photos for each class"),
    (["cat/1.jpg", "2.jpg"], "{} has the photo '2.jpg' outside of any class's folder (1 such photos): move them into "
                             "the folders of their classes"),
    (["cat/1\t2.jpg"], "{} has a path with a control character, 'cat/1\\t2.jpg' (1 such rows): "
                       "rename those"),
    (["cat/\udcff.jpg"], "{} has a photo whose name is not UTF-8, 'cat/\\udcff.jpg': rename it"),
], ids=["nothing", "no photo", "outside", "control character", "not UTF-8"])
def test_unfit_trees_are_refused(tmp_path, paths, sentence):
    (tmp_path / "tree").mkdir()
    where = tree(tmp_path / "tree", *paths)
    with pytest.raises(UserError) as error:
        read_class_folders(where)
    assert str(error.value) == sentence.format(where)


def test_an_unknown_kind_of_url_is_refused():
    with pytest.raises(UserError, match="^nope://x has a protocol that fsspec does not know"):
        read_class_folders("nope://x")


def test_letters_of_a_key_are_those_of_the_format():
    made = ids_from_paths(pd.Series([f"{string.ascii_uppercase}_-9.jpg"]))[0]
    assert made.startswith(f"{string.ascii_lowercase}_-9-")
