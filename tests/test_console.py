"""A command whose output is read no longer, as by `head`, ends with a sentence or, if its work is done, as ever."""
import os
import subprocess
import sys

import pytest

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
