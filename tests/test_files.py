import signal
import subprocess
import sys

import pytest

from arcshard.files import sha256, whole_file, write_text


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


def test_sha256_is_the_known_one(tmp_path):
    write_text(tmp_path / "f", "abc")
    assert sha256(tmp_path / "f").startswith("ba7816bf8f01cfea414140de5dae2223")
