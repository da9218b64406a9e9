"""Every command that README and docs show can be typed: programs, scripts, options and presets exist, and what runs it
in the suite, or why nothing does, stands here."""
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.config import read_arguments

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "benchmarks/README.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)

# What runs each of the project's commands: a file of tests/, or no test, for the reason given.
RUN_BY = {
    "preprocess/fetch.py": "test_fetch.py",
    "preprocess/clean.py": "test_clean.py",
    "preprocess/duplicates.py": "test_duplicates.py",
    "preprocess/make_shards.py": "test_make_shards.py",
    "-m shards verify": "test_shards_verify.py",
    "-m shards repair": "test_shards_repair.py",
    "-m shards adopt": "test_shards_adopt.py",
    "-m shards info": "test_shards_info.py",
    "-m loader preview": "test_preview.py",
    "train.py": "test_train.py",
    "-m training average": "test_soup.py",
    "-m training generalize": "test_generalize.py",
    "evaluate.py": "test_pipeline_commands.py",
    "predict.py": "test_pipeline_commands.py",
    "tune.py": "test_pipeline_commands.py",
    "-m retrieval serve": "test_web.py",
    "-m retrieval embed": "test_run_embed.py",
    "-m retrieval neighbors": "test_run_embed.py",
    "-m retrieval rerank": "test_pipeline_commands.py",
    "-m retrieval benchmark": "test_run_benchmark.py",
    "-m retrieval whiten": "test_retrieval_whitening.py",
    "report.py": "test_report_page.py",
    "export.py": "test_export.py",
    "docs/configuration.py": "test_readme.py",
    "docs/picture.py": "draws README's picture from the demo's trained run",
    "docs/studies/convergence.py": "test_convergence.py",
    "docs/studies/convergence_warned.py": "test_convergence.py",
    "docs/studies/accumulation.py": "trains the demo 27 times",
    "docs/studies/unseen.py": "trains the demo 15 times; test_generalize.py compares what it chose with float64",
    "benchmarks/throughput.py": "test_benchmarks.py",
    "benchmarks/order.py": "test_benchmarks.py",
    "benchmarks/gpu.py": "test_benchmarks.py",
    "benchmarks/packing.py": "test_benchmarks_packing.py",
    "benchmarks/full_scale.py": "test_benchmarks_packing.py",
    "benchmarks/loaders.py": "test_benchmarks_loaders.py",
    "benchmarks/object_storage.py": "test_remote_shards.py",
    "benchmarks/sample_table.py": "test_scale.py",
    "benchmarks/chaos.py": "test_chaos.py",
    "benchmarks/clean.py": "times tables of millions of rows; test_scale.py makes and cleans small ones",
    "benchmarks/demo_seeds.py": "trains the demo three times",
    "benchmarks/heads.py": "times heads of 81,313 classes; test_heads.py runs the heads",
    "benchmarks/neighbors.py": "times a search of millions of vectors; test_retrieval_neighbors.py runs the search",
    "benchmarks/prediction.py": "times the demo's trained run; test_predictor.py runs it",
}
# Commands of others, by how they begin, and why the suite does not run them.
NOT_OURS = {
    "git clone": "no network",
    "pip install": "no network; test_installed.py installs the project without what it needs",
    "apt-get install": "changes the machine",
    "benchmarks/peers/install.sh": "8 GB; test_benchmarks_packing.py runs it up to its first refusal",
    "docker": "no engine, no network; test_installed.py compares the Dockerfile with README",
    "awk": "an example of joining tables of the reader's own",
    "make": "its commands are the scripts above and the suite itself",
}


def commands_of(page: Path) -> Iterator[str]:
    """The lines of a page's blocks without a language (what follows $, where that is there), and code in its text that
    begins like one of our commands. A block with arrows is a drawing."""
    text = page.read_text()
    for language, block in FENCED.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        if not language and "→" not in block:
            yield from filter(None, lines)
    for code in re.findall(r"`((?:python|torchrun)\s[^`]+)`", FENCED.sub("", text)):
        if not re.search(r"…|NAME\b|-m retrieval$", code):  # those stand for several commands
            yield " ".join(code.split())


def taken_apart(command: str) -> tuple[str, list[str]]:
    """Script, or `-m MODULE` with its subcommand, and the words after it. Brackets enclose what may be left out."""
    words = shlex.split(command.replace(" [", " ").replace("] ", " ").removesuffix("]"), comments=True)
    start = next(i for i, word in enumerate(words) if word == "-m" or word.endswith(".py"))
    if words[start] != "-m":
        return words[start], words[start + 1:]
    module, subcommand, *rest = (word for word in words[start + 1:] if word != "--")
    return f"-m {module} {subcommand}", rest


COMMANDS = [(page, command) for page in PAGES for command in commands_of(page)]
OURS = [(page, *taken_apart(command)) for page, command in COMMANDS if re.match(r"python |torchrun ", command)]


def test_every_command_is_run_by_a_test_or_has_a_reason():
    assert {script for _, script, _ in OURS} <= RUN_BY.keys()
    for _, command in COMMANDS:
        assert re.match(r"python |torchrun ", command) or any(map(command.startswith, NOT_OURS)), command


@pytest.mark.parametrize("script", [script for script, by in RUN_BY.items() if by.endswith(".py")])
def test_the_test_that_runs_a_command_names_it(script):
    assert Path(script.split()[-1]).stem in (ROOT / "tests" / RUN_BY[script]).read_text()


@pytest.mark.parametrize("script", sorted(RUN_BY))
def test_every_option_that_a_page_shows_exists(script, call):
    done = call(*script.split(), "--help")
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"--[\w.-]*\w", done.stdout))
    for page, _, words in (ours for ours in OURS if ours[1] == script):
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, page


@pytest.mark.parametrize("words", [words for _, script, words in OURS if script == "train.py" and
                                   not {"…", "--help"} & {*words}], ids=" ".join)
def test_presets_and_values_that_a_page_gives_to_train_py_are_taken(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    read_arguments(words)


def test_make_targets_exist():
    targets = {word for _, command in COMMANDS if command.startswith("make ")
               for word in shlex.split(command, comments=True)[1:]}
    assert {"demo", "test", "docs"} <= targets
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
