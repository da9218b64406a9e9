import errno
import os
import signal
import subprocess
import sys

import pytest

from arcshard import files
from arcshard.console import UserError
from arcshard.files import folder_lock, sha256, whole_file, write_text


def test_a_failing_writer_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    write_text(tmp_path / "f", "old")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "f") as f:
        f.write(b"half of the new")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "old"


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "f", "old")
    code = (f"import os\nfrom arcshard.files import whole_file\nwith whole_file({str(tmp_path / 'f')!r}) as f:\n"
            " f.write(b'new' * 9999)\n f.flush()\n os.kill(os.getpid(), 9)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (tmp_path / "f").read_text() == "old"
    write_text(tmp_path / "f", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "new"


def test_a_reader_sees_what_one_of_several_writers_wrote(tmp_path):
    code = ("import sys\nfrom arcshard.files import whole_file\n"
            "for _ in range(40):\n with whole_file(sys.argv[1]) as f:\n  for _ in range(20):\n"
            "   f.write(sys.argv[2].encode() * int(sys.argv[3]))")
    whole = {letter.encode() * 20 * size for letter, size in (("a", 90_000), ("b", 60_000), ("c", 30_000))}
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "f", data[:1], str(len(data) // 20)])
               for data in whole]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / "f").exists():
            seen.add((tmp_path / "f").read_bytes())
    assert not any(writer.returncode for writer in writers)
    assert seen <= whole and len(seen) > 1
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("locks", [True, False])
def test_the_last_of_two_writers_wins(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(files.fcntl, "flock", no_flock)
    with whole_file(tmp_path / "f") as first:
        first.write(b"first")
        with whole_file(tmp_path / "f") as second:
            second.write(b"second")
            assert first.name != second.name
        assert (tmp_path / "f").read_text() == "second"
        with pytest.raises(RuntimeError), whole_file(tmp_path / "f"):
            raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "first"


def no_flock(*args):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_a_folder_that_cannot_be_locked_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files.fcntl, "flock", no_flock)
    with folder_lock(tmp_path):
        assert f"{tmp_path} is on a file system without locks" in capsys.readouterr().err


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(tmp_path, small_files):
    write_text(tmp_path / "f", "old")
    for size in (3000, 3_000_000):  # fits into the buffer, or does not
        with small_files, pytest.raises(UserError, match=f"no room left for {tmp_path / 'f'} .*make space"):
            write_text(tmp_path / "f", "x" * size)
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "old"


def test_sha256_is_the_known_one(tmp_path):
    write_text(tmp_path / "f", "abc")
    assert sha256(tmp_path / "f").startswith("ba7816bf8f01cfea414140de5dae2223")
