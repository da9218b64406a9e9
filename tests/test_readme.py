"""README and docs name what is there: files, make targets, flags; their snippets run."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = re.findall(r"^(?:python|torchrun)(?: --nproc-per-node 8)? ((?:-m )?[\w./]+) ((?:.|\\\n)*?)(?:\s+#.*)?$",
                      README, re.M)
CONTRACT = {"preprocess/clean.py", "preprocess/make_shards.py", "-m shards", "train.py", "evaluate.py", "predict.py",
            "report.py", "benchmarks/throughput.py"}


def test_the_readme_shows_the_commands_of_the_contract():
    assert {script for script, _ in COMMANDS} >= CONTRACT


@pytest.mark.parametrize("script", sorted({script for script, _ in COMMANDS}))
def test_every_flag_that_it_shows_exists(script, call):
    done = call(*script.split(), "--help")
    assert done.returncode == 0, done.stderr
    shown = {flag for each, words in COMMANDS if each == script for flag in re.findall(r"--[\w.-]+", words)}
    for command in {words.split()[0] for each, words in COMMANDS if each == script == "-m shards"}:
        done.stdout += call(*script.split(), command, "--help").stdout
    assert shown <= set(re.findall(r"--[\w.-]*\w", done.stdout))


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"@[A-Z]+@|TODO|TBD", README)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_that_a_page_links_or_names_exist(page):
    text = page.read_text()
    links = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    named = re.findall(r"\b(?:configs|docs|tests|benchmarks|preprocess)/[\w.-]+\.(?:py|md|yaml|sh)\b", text)
    assert links or named or page.name != "README.md"
    for path in [*(page.parent / link for link in links), *(ROOT / name for name in named)]:
        assert path.exists(), path


def test_make_targets_that_the_readme_names_exist():
    targets = re.findall(r"`?make ([a-z-]+)", README)
    assert {"demo", "test"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_snippet_of_the_format_page_runs(dataset_path):
    snippet, = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "format.md").read_text(), re.S)
    names: dict = {}
    exec(snippet.replace("data/demo/dataset", str(dataset_path)), names)
    assert names["jpeg"][:3] == b"\xff\xd8\xff" and len(names["ds"]) == 60
