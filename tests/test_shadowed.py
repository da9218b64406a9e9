"""A user's own model.py or loader.py in the working directory does not break the commands."""
import os

import pytest

from tests.commands import ROOT

ROOMS = ("benchmarks", "loader", "model", "pages", "preprocess", "retrieval", "shards", "training")


@pytest.mark.parametrize("command", ["loader", "retrieval", "shards"])
def test_a_file_in_the_working_directory_is_not_taken_for_a_room(process, tmp_path, command):
    for room in ROOMS:
        if room != command:
            (tmp_path / f"{room}.py").write_text("raise SystemExit('the user\\'s file is run')")
    done = process("-m", command, "--help", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and f"python -m {command}" in done.stdout, done.stderr


def test_elsewhere_the_users_own_modules_stay_first(process, tmp_path):
    """Whoever imports the loader may have a model.py of their own."""
    (tmp_path / "model.py").write_text("mine = True")
    done = process("-c", "import loader, model; print(model.mine)", cwd=tmp_path,
                   env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout == "True\n", done.stderr
