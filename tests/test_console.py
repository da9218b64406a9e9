"""What all commands share.

A command whose output is read no longer, as by `head`, ends with a sentence or, if its work is done, as ever."""
import os
import subprocess
import sys

import pytest

from arcshard.console import command_of, progress, time_text
from tests.commands import ROOT

MAIN = "import sys; from arcshard.console import run; sys.argv = ['bin/clean.py']; "


def unread(main: str) -> tuple[int, str]:
    """The exit code and stderr of a command whose stdout is a pipe without a reader."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen([sys.executable, "-c", MAIN + main], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env)
    process.stdout.close()
    said = process.communicate("\n")[1]  # it begins when it has read this
    return process.returncode, said


@pytest.mark.parametrize("main", ["print('x' * 10**6)", "[print(i, flush=True) for i in range(9)]"])
def test_a_command_stops_when_nobody_reads_its_lines(main):
    code, said = unread(f"run(lambda: (input(), {main}))")
    assert code == 141 and said.startswith("clean.py: what read its output, such as head, has ended")
    assert said.count("\n") == 1


def test_a_command_that_has_done_its_work_ends_as_ever():
    assert unread("run(lambda: (input(), print('done'), 1)[2])") == (1, "")


def test_another_broken_pipe_is_not_hidden():
    code, said = unread("import os; r, w = os.pipe(); os.close(r); os.dup2(w, 9); sys.stdout = open(os.devnull, 'w'); "
                        "run(lambda: os.write(9, b'x'))")
    assert code == 1 and "BrokenPipeError" in said


def test_progress_in_a_pipe_is_lines_that_end(capsys):
    for _ in progress(range(3), unit="photos", what="embed", delay=0):
        pass
    lines = capsys.readouterr().err.splitlines(keepends=True)
    assert [line[:11] for line in lines] == ["embed:   0%", "embed: 100%"]
    assert all(line.endswith("]\n") and "\r" not in line for line in lines)


def test_what_takes_no_two_seconds_shows_no_progress(capsys):
    assert [*progress(range(3), unit="photos", what="embed")] == [0, 1, 2] and capsys.readouterr().err == ""


@pytest.mark.parametrize("name, shown", [("bin/train.py", "python evaluate.py --run 'my run'"),
                                         ("arcshard train", "arcshard evaluate --run 'my run'")])
def test_the_next_command_is_spelled_as_this_one_was(name, shown, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name])
    assert command_of("evaluate", "--run", "my run") == shown


@pytest.mark.parametrize("seconds, text", [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"),
                                           (3600, "1 h 0 min"), (1e7, "2,777 h 46 min")])
def test_a_duration_is_for_people(seconds, text):
    assert time_text(seconds) == text
