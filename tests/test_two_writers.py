"""Two commands that write into one folder: the second ends with a sentence, on all ranks, and changes nothing."""
import errno
import sys

import pytest

import train as train_page
from arcshard import console
from arcshard.console import UserError
from arcshard.files import DiskFull, folder_lock

TINY = ["--model.backbone", "test_efficientnet", "--model.weights", "none", "--train.size", "32",
        "--train.global_batch", "12", "--train.device", "cpu", "--loader.num_threads", "1", "--train.epochs", "1"]


@pytest.fixture
def words(dataset_path, tmp_path):
    return ["train.py", *TINY, "--data", dataset_path, "--out", tmp_path / "run"]


def test_a_second_training_into_a_run_is_refused(call, words, tmp_path, refused):
    (tmp_path / "run").mkdir()
    with folder_lock(tmp_path / "run"):
        refused(call(*words), f"{tmp_path / 'run'} is locked: another process writes into it; wait until it ends")
    assert (tmp_path / "run").is_dir() and not list((tmp_path / "run").iterdir())
    assert call(*words).returncode == 0


def test_training_holds_the_lock_of_its_run(monkeypatch, words, tmp_path):
    def locked(*_):
        with pytest.raises(UserError, match="is locked"), folder_lock(tmp_path / "run"):
            pass
        return 7

    monkeypatch.setattr(train_page, "train", locked)
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    assert train_page.main() == 7
    assert not (tmp_path / "run").exists(), "nothing was written into it"


def test_a_full_disk_under_a_library_that_writes_is_a_sentence(monkeypatch, words, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(train_page, "train", full)
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(DiskFull, match=f"no room left for {tmp_path / 'run'} "):
        train_page.main()


def test_ranks_refuse_together_and_say_so_once(process, words, tmp_path):
    (tmp_path / "run").mkdir()
    with folder_lock(tmp_path / "run"):
        done = process("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words)
    said = done.stderr.split("Traceback")[0]  # after it torchrun's own
    assert done.returncode == 1 and said.count("is locked") == 1 and "lost another" not in done.stderr


def test_what_several_ranks_would_say_is_said_by_the_first(monkeypatch, capsys, tmp_path):
    def said(rank, main, attempt="0"):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / attempt / rank / "error.json"))
        with pytest.raises(SystemExit, match="2"):
            console.run(main)
        return len(capsys.readouterr().err.splitlines())

    def mistake():
        raise UserError("it is wrong")

    (tmp_path / "0").mkdir()
    for wrong in (mistake, lambda: console.Parser(prog="p").parse_args(["--no"]), lambda: open("/none")):
        assert [said("1", wrong), said("0", wrong), said("2", wrong)] == [1, 0, 0]
    assert said("0", mistake, "no folder") == 1
