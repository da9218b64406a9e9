"""The project's commands as their users run them: in this process, which has torch loaded, or in one of their own."""
import contextlib
import io
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parent.parent


def run_as_main(words: Sequence[str]) -> None:
    """Run `SCRIPT …` or `-m MODULE …` as a new interpreter would: `__main__`, sys.argv and sys.path are its own."""
    module = words[1] if words[0] == "-m" else None
    argv = list(words[1:] if module else words)
    folder = str(ROOT) if module else str(Path(argv[0]).absolute().parent)
    with mock.patch.object(sys, "argv", argv), mock.patch.object(sys, "path", [folder, *sys.path]):
        if module:
            sys.modules.pop(f"{module}.__main__", None)  # a test may have imported it
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(argv[0], run_name="__main__")


def run_here(*words: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None
             ) -> subprocess.CompletedProcess[str]:
    """Run `SCRIPT …` or `-m MODULE …` in this process: exit code, stdout and stderr as a shell would see them.

    Nothing but its start differs from run_process (4 to 6 s where a command imports torch and DALI): `__main__`,
    sys.argv, sys.path, folder and environment are those of a process of its own. What workers write to stderr is not
    seen, and what a command changes in the interpreter stays.
    """
    argv = [str(word) for word in words]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (mock.patch.dict(os.environ, env or os.environ, clear=True), contextlib.chdir(cwd),
          contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)):
        try:
            run_as_main(argv)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess(argv, code, *(text.buffer.getvalue().decode() for text in (out, err)))


def run_process(*words: object, cwd: Path = ROOT, timeout: float = 300,
                **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `SCRIPT …` or `-m MODULE …` in a process of its own, for promises that are about processes."""
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=timeout,
                          **options)
