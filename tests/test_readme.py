"""README and docs say what is there: files, flags, snippets."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^(?:python|torchrun)(?: --nproc-per-node 8)? ((?:-m )?[\w./]+) ((?:.|\\\n)*?)(?:\s+#.*)?$",
                      README, re.M)


def test_the_readme_shows_the_commands_of_the_contract():
    shown = {script for script, _ in COMMANDS}
    assert shown >= {"preprocess/clean.py", "preprocess/make_shards.py", "-m shards", "train.py", "evaluate.py",
                     "predict.py", "report.py", "benchmarks/throughput.py"}


@pytest.mark.heavy
@pytest.mark.parametrize("script, words", COMMANDS, ids=[script for script, _ in COMMANDS])
def test_every_flag_that_it_shows_exists(script, words, call):
    done = call(*script.split(), "--help")
    assert done.returncode == 0, done.stderr
    for flag in re.findall(r"--[\w.-]+", words):
        assert flag in done.stdout, f"{script} has no {flag}"


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"@[A-Z]+@|TODO|TBD", README)


def test_files_and_make_targets_that_it_names_exist():
    for path in re.findall(r"\b(?:configs|docs|tests|benchmarks|preprocess)/[\w.-]+\.\w+", README):
        assert (ROOT / path).is_file(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_snippet_of_the_format_page_runs(dataset_path):
    snippet, = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "format.md").read_text(), re.S)
    names: dict = {}
    exec(snippet.replace("data/demo/dataset", str(dataset_path)), names)
    assert names["jpeg"][:3] == b"\xff\xd8\xff" and len(names["ds"]) == 60
