"""What all commands share: mistakes answered in one sentence with exit code 2, progress with rate and time left."""
import argparse
import hashlib
import os
import select
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

# Signals that ask a process to end, as a flag that its loop looks at.


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that receives SIGTERM and SIGINT inside the block, instead of the process dying of them."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: received.append(number))
              for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class UserError(Exception):
    """A mistake that its user can mend. The message says what is wrong, where, what was given and what to do."""

    code = 2
    """Exit code of a command that ends with it."""


def expand_home(path: str | os.PathLike[str]) -> str:
    """The path or URL as text, a leading ~ or ~user replaced by that home folder, as by a shell.

    Raises UserError for a user whom this machine does not know.
    """
    expanded = os.path.expanduser(os.fspath(path))
    if expanded.startswith("~"):
        raise UserError(f"{path} begins with {expanded.partition('/')[0]}, a user whom this machine does not know: "
                        "give the whole path")
    return expanded


def by_name() -> bool:
    """Whether the command was called under the name arcshard, and not as a script or module."""
    return sys.argv[0].startswith("arcshard ")


class Parser(argparse.ArgumentParser):
    """argparse that answers a wrong argument in one line, expands ~ in each, and takes no abbreviations."""

    def __init__(self, **kwargs: Any):
        if by_name():
            kwargs |= {key: kwargs[key].replace("python -m ", "arcshard ") for key in ("prog", "description")
                       if kwargs.get(key)}
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Called by argparse for each value. A shell leaves the ~ of --out=~/x as it is."""
        return super()._get_value(action, expand_home(arg_string))

    def error(self, message: str) -> NoReturn:
        fail(f"{self.prog}: {message}; see {self.prog} --help", 2)

    def refuse_renamed(self, old: str, new: str) -> None:
        """Refuse the option `old` of earlier versions, with or without a value, by a sentence that names `new`."""
        self.add_argument(old, action=_Renamed, nargs="?", const=new, help=argparse.SUPPRESS)


class _Renamed(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> NoReturn:
        parser.error(f"{option_string} is now {self.const}")


def check_least(args: argparse.Namespace, least: float, *names: str) -> None:
    """Raise UserError for an argument below `least`; one that is None was not given."""
    for name in names:
        if (value := getattr(args, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}: give at least {least}")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Exit with main()'s code (None is 0); a UserError, or a path that the system refuses, is a sentence and 2."""
    name = sys.argv[0].rpartition("/")[2]
    try:
        sys.exit(main())
    except UserError as error:
        fail(f"{name}: {error}", error.code)
    except BrokenPipeError:
        if not _reader_left():
            raise
        fail(f"{name}: what read its output, such as head, has ended, and so does it; its work may be unfinished", 141)
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"{name}: {error.filename}: {error.strerror}; check the path", 2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        if _reader_left():  # or the interpreter would complain that it cannot write the rest
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_left() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout, 0)  # POLLERR is always reported
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, TypeError, ValueError):  # no file, closed, or none
        return False


def fail(sentence: str, code: int) -> NoReturn:
    """Exit with a sentence, which only one of the ranks prints that torchrun started on this machine."""
    sentence = printable(sentence)
    if not _is_said(sentence):
        print(sentence, file=sys.stderr)
    sys.exit(code)


def printable(text: str) -> str:
    """The text on one line: a name from a foreign file may hold what would steer the terminal, or is not UTF-8."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _is_said(sentence: str) -> bool:
    """Whether another rank prints it: the first leaves a mark in the folder that torchrun made for this start."""
    own = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/LOCAL_RANK/error.json
    if not own:
        return False
    try:
        Path(own).parents[1].joinpath(f"said-{hashlib.sha256(sentence.encode()).hexdigest()}").touch(exist_ok=False)
    except FileExistsError:
        return True
    except OSError:  # better twice than never
        pass
    return False


class _Lines(tqdm):
    """Progress in a file or pipe: a new line each time, where a terminal's would be drawn anew."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if msg is None:  # an empty one would clear the bar
            print(self, file=self.fp, flush=True)
        return False  # so that tqdm adds nothing

    def close(self) -> None:
        if not self.disable and self.n > self.last_print_n and self.last_print_t >= self.start_t + self.delay:
            self.display()
        super().close()


def progress(iterable: Iterable[Any] | None = None, *, total: int | None = None, initial: int = 0, unit: str,
             what: str, disable: bool = False, unit_scale: bool = False, delay: float = 2) -> Any:
    """A tqdm bar: done/total, rate and time left; in a file or pipe a line every 10 s instead of a redrawn one.

    unit_scale: large numbers as 1.64G. delay: seconds until it may appear; 0 where the first item may take long.
    """
    shown = sys.stderr.isatty()
    return (tqdm if shown else _Lines)(
        iterable, total=total, initial=initial, unit=f" {unit}", desc=what, disable=disable, dynamic_ncols=shown,
        unit_scale=unit_scale, delay=delay, mininterval=0.2 if shown else 10.0, leave=shown)


def say(line: str) -> None:
    """Print it above the progress bar, if one is shown."""
    if sys.stderr.isatty():
        tqdm.write(line)
        sys.stdout.flush()
    else:
        print(line, flush=True)


def command_of(name: str, *words: object) -> str:
    """A command to type next: of the repository, or under the name arcshard if this one was called so."""
    start = ["arcshard", name] if by_name() else ["python", f"{name}.py"]
    return shlex.join([*start, *map(str, words)])


def time_text(seconds: float) -> str:
    """A duration for people: 3 h 20 min, 5 min 2 s, 40 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def rate_text(rate: float) -> str:
    """A number a second for people: 1,234, 56, 7.8, 0.91."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def size_text(size: float) -> str:
    """A number of bytes for people: 58.9 GB, 190.0 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:,.1f} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:,.1f} TB"
