"""Each file of a tree is listed once, or the link that stands in the way is named."""
import os
from pathlib import Path

import pytest

from arcshard.console import UserError
from arcshard.trees import files_below


def tree(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")
    return folder


def test_all_visible_files_are_listed(tmp_path):
    where = tree(tmp_path / "t", "a/1", "a/b/2", "3", ".git/4", "a/._5", "é \n/6")
    os.mkfifo(where / "pipe")
    assert sorted(files_below(where)) == sorted(files_below(str(where) + "/")) == ["3", "a/1", "a/b/2", "é \n/6"]


def test_links_are_followed(tmp_path):
    tree(tmp_path / "elsewhere", "x/1", "y/2")
    where = tree(tmp_path / "t", "a/3")
    (where / "x").symlink_to(tmp_path / "elsewhere" / "x")
    (where / "a" / "2").symlink_to(tmp_path / "elsewhere" / "y" / "2")
    (tmp_path / "link").symlink_to(where)
    assert sorted(files_below(tmp_path / "link")) == ["a/2", "a/3", "x/1"]


@pytest.mark.parametrize("link, to", [
    ("a/loop", "t"), ("a/loop", "t/a"), ("a/above", "."), ("z", "t/b"), ("0", "t/b"), ("b/c/z", "t/a"), ("0", "t/b/c")])
def test_a_link_to_a_folder_that_is_there_already_is_named(tmp_path, link, to):
    where = tree(tmp_path / "t", "a/1", "b/c/2")
    (where / link).symlink_to(tmp_path / to)
    with pytest.raises(UserError, match=f"^the link {where / link} leads to {where}.*, which is in {where} already"):
        list(files_below(where))
    (tmp_path / "shortcut").symlink_to(where)
    with pytest.raises(UserError, match=f"^the link {tmp_path}/shortcut/{link} leads to {tmp_path}/shortcut"):
        list(files_below(tmp_path / "shortcut"))


def test_two_links_to_one_folder_are_refused(tmp_path):
    tree(tmp_path / "elsewhere", "1")
    where = tree(tmp_path / "t", "a/2")
    for link in ("x", "y"):
        (where / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"the link {where}/x leads to {where}/y, which is in {where} already"):
        list(files_below(where))


@pytest.mark.parametrize("link", ["a/dead.jpg", "dead"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, link):
    where = tree(tmp_path / "t", "a/1")
    (where / link).symlink_to("gone")
    with pytest.raises(UserError, match=f"the link {where / link} leads to gone, which is not there: remove"):
        list(files_below(where))


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    where = tree(tmp_path / "t", "a/1", "b/2")

    def scandir(folder: str) -> object:
        if folder.endswith("/b"):
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)  # tests may run as root, who can read every folder
    with pytest.raises(PermissionError):
        list(files_below(where))
