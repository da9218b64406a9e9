"""Disturb every command that writes, at random moments and places, and see whether anything is lost.

    python benchmarks/chaos.py --work FOLDER [--tries 20] [--seed 0] [--only "kill -9, pack" …] [--json FILE]

Faults: kill -9 and SIGTERM, a worker that is killed, too little memory (a control group) and a disk that fills (a
tmpfs), both for root alone, a wall clock that jumps, bits that flip and files that are cut, a storage server that errs,
500 wrong uploads at once.
After each, the same command must end with the bytes, losses or answers that it gives undisturbed; where it cannot, it
must say so in one sentence with exit code 2. Each trial is drawn by the seed, its row and its number; a trial that
failed is repeated by --only ROW --numbers N. Ends with a table; exit codes: 0 all was as it should be, 1 something was
not, 2 wrong arguments. Two trials run at a time; all of it takes less than an hour on two cores.
"""
import argparse
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from chaos_damage import TARGETS, bucket, erring_server, from_bucket, spoil, wrong_uploads
from chaos_faults import AT_ONCE, FAULTS, GROUPS, Reference, Trial, full_disk, refer, short_memory
from chaos_works import WORKS, Inputs, Work, fetch, kaggle_server, make_inputs
from machine import listed, publish

from arcshard.console import Parser, UserError, check_least, progress, run

PACKAGES = ("torch", "nvidia-dali-cuda130", "numpy", "pandas", "s3fs", "moto")
SERVER, UPLOADS = "erring server, train", "wrong uploads, serve"


def main() -> None:
    args = parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")  # of all commands
    with ExitStack() as stack:
        publish(args, PACKAGES, lambda args: report(args, stack), text)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and trials")
    parser.add_argument("--tries", type=int, default=20, help="trials of each row (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="some rows of the table (default: all)")
    parser.add_argument("--numbers", type=int, nargs="+", metavar="N", help="only the trials of these numbers")
    parser.add_argument("--json", type=Path, help="also write every trial here")
    args = parser.parse_args()
    check_least(args, 1, "tries")
    args.work = args.work.resolve()
    if unknown := set(args.only or ()) - set(row_names()):
        raise UserError(f"--only {min(unknown)!r} is no row: choose of {', '.join(map(repr, row_names()))}")
    return args


def row_names() -> list[str]:
    return [*(f"{fault}, {name}" for fault, (_, names) in FAULTS.items() for name in names),
            *(f"damage, {name}" for name in TARGETS), SERVER, UPLOADS]


class Row(NamedTuple):
    """A fault and the command that it befalls; None: not tried, for the reason given."""

    work: Work | None
    fault: Callable[[Trial], None] | None
    reason: str = ""
    at_once: int = AT_ONCE


def report(args: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """{"rows": row name -> its trials, each with number, faults, refused; or the reason why there are none}."""
    inputs = make_inputs(args.work / "inputs")
    references: dict[str, Reference] = {}
    rows: dict[str, Any] = {}
    for name in args.only or row_names():
        if name == UPLOADS:
            rows[name] = [{"number": 0, "refused": False, "faults": uploads(args, inputs)}]
        else:
            row = row_of(name, inputs, args, stack)
            rows[name] = row.reason or trials_of(row, name, args, inputs, references)
        print(line(name, rows[name]), flush=True)
    return {"seed": args.seed, "rows": rows}


def row_of(name: str, inputs: Inputs, args: argparse.Namespace, stack: ExitStack) -> Row:
    if name == SERVER:
        front = stack.enter_context(bucket(inputs))
        return Row(from_bucket(), lambda trial: erring_server(trial, front), at_once=1)  # any request has its faults
    fault, _, command = name.partition(", ")
    if fault == "damage":
        target = TARGETS[command]
        return Row(target.work, lambda trial: spoil(trial, target))
    act = FAULTS[fault][0]
    if act is full_disk and os.geteuid():
        return Row(None, None, "not tried: only root can mount a small disk")
    if act is short_memory and not os.access(GROUPS, os.W_OK):
        return Row(None, None, f"not tried: needs the right to make control groups in {GROUPS}")
    if command == "fetch":
        server = stack.enter_context(kaggle_server.running())
        return Row(fetch(server, args.work / "home"), act)
    return Row(next(work for work in WORKS if work.name == command), act)


def trials_of(row: Row, name: str, args: argparse.Namespace, inputs: Inputs,
              references: dict[str, Reference]) -> list[dict[str, Any]]:
    """The trials of a row, some at a time."""
    assert row.work
    if row.work.name not in references:
        shutil.rmtree(args.work / "reference", ignore_errors=True)
        references[row.work.name] = refer(row.work, inputs, args.work / "reference")
    reference, numbers = references[row.work.name], args.numbers or range(args.tries)
    with ThreadPoolExecutor(row.at_once) as pool:
        trials = pool.map(lambda number: tried(row, name, number, args, inputs, reference), numbers)
        return list(progress(trials, total=len(numbers), unit="trial", what=name))


def tried(row: Row, name: str, number: int, args: argparse.Namespace, inputs: Inputs,
          reference: Reference) -> dict[str, Any]:
    """One trial; its folder stays if something was not as it should be."""
    assert row.work and row.fault
    folder = args.work / "trials" / f"{name} {number}".replace(" ", "-").replace(",", "")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    row.work.prepare(inputs, folder)
    trial = Trial(row.work, inputs, reference, folder, random.Random(f"{args.seed} {name} {number}"))
    row.fault(trial)
    if not trial.faults:
        shutil.rmtree(folder)
        for noted in folder.parent.glob(f"{folder.name}.stderr-*"):
            noted.unlink()
    return {"number": number, "refused": trial.refused, "faults": trial.faults}


def uploads(args: argparse.Namespace, inputs: Inputs) -> list[str]:
    return wrong_uploads(inputs, args.work, random.Random(f"{args.seed} {UPLOADS}"))


def line(name: str, trials: Any) -> str:
    """A row of the table."""
    if isinstance(trials, str):
        return f"{name:38}{trials}"
    counts = {what: sum(any(fault.startswith(what) for fault in trial["faults"]) for trial in trials)
              for what in ("lost", "misled", "hung", "traceback")}
    other = sum(bool(trial["faults"]) for trial in trials)
    failed = [f"{trial['number']}: {fault}" for trial in trials for fault in trial["faults"]]
    cells = f"{len(trials):5} tries {sum(trial['refused'] for trial in trials):5} refused " + " ".join(
        f"{count:4} {what}" for what, count in counts.items()) + f" {other:4} failed"
    return "\n".join([f"{name:38}{cells}", *(f"    {fault}" for fault in failed)])


def text(report: dict[str, Any]) -> str:
    failed = sum(bool(trial["faults"]) for trials in report["rows"].values() if not isinstance(trials, str)
                 for trial in trials)
    tries = sum(len(trials) for trials in report["rows"].values() if not isinstance(trials, str))
    return f"{listed(report['machine'])}\nseed {report['seed']}: {failed} of {tries} trials failed"


if __name__ == "__main__":
    run(main)
