"""README and docs name what is there: files, make targets, flags; their snippets run."""
import re
import shutil
from pathlib import Path

import pytest

from tests.random_run import save_random_run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted(path for folder in (ROOT, ROOT / "docs", ROOT / "benchmarks") for path in folder.glob("*.md"))
COMMAND = re.compile(r"^(?:python|torchrun)(?: --[\w-]+ [\w.:-]+| \\\n)*? ((?:-m )?[\w./]+)((?:.|\\\n)*?)(?:\s+#.*)?$",
                     re.M)  # with torchrun's own options in front
SUBCOMMANDS = {"-m shards", "-m retrieval", "-m loader"}
CONTRACT = {"preprocess/clean.py", "preprocess/make_shards.py", "-m shards", "train.py", "evaluate.py", "predict.py",
            "report.py", "benchmarks/throughput.py"}


def commands(text: str) -> list[tuple[str, set[str]]]:
    """(script and its subcommand, flags) of each command of the project in the text's blocks of code."""
    found = []
    for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S):
        for script, words in COMMAND.findall(block):
            if script in SUBCOMMANDS:
                script = f"{script} {words.split()[0]}"
            if script.startswith("-m") or (ROOT / script).is_file():
                found.append((script, set(re.findall(r"(?<!\S)--[\w.-]+", words))))
    return found


def flags_of(pages: list[Path]) -> dict[str, set[str]]:
    """Every command that the pages show, with all flags that they show of it."""
    shown: dict[str, set[str]] = {}
    for page in pages:
        for script, flags in commands(page.read_text()):
            shown.setdefault(script, set()).update(flags)
    return shown


SHOWN = flags_of(PAGES)


def test_the_readme_shows_the_commands_of_the_contract():
    shown = {re.sub(r"(-m shards) .*", r"\1", script) for script, _ in commands(README)}
    assert shown >= CONTRACT


@pytest.mark.parametrize("script", sorted(SHOWN))
def test_every_flag_that_a_page_shows_exists(script, call):
    done = call(*script.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert SHOWN[script] <= set(re.findall(r"--[\w.-]*\w", done.stdout))


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"@[A-Z]+@|TODO|TBD", README)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_that_a_page_links_or_names_exist(page):
    text = page.read_text()
    links = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    named = re.findall(r"\b(?:configs|docs|tests|benchmarks|preprocess)/[a-z0-9][\w.-]*\.(?:py|md|yaml|sh)\b", text)
    assert links or named or page.name != "README.md"
    for path in [*(page.parent / link for link in links), *(ROOT / name for name in named)]:
        assert path.exists(), path


def test_make_targets_that_the_readme_names_exist():
    targets = re.findall(r"`?make ([a-z-]+)", README)
    assert {"demo", "test"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


def names_after_the_snippet_of(page: str, dataset_path: Path) -> dict:
    """What the page's only Python snippet defines, run on the tests' dataset."""
    snippet, = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    names: dict = {}
    exec(snippet.replace("data/demo/dataset", str(dataset_path)), names)
    return names


def test_the_snippet_of_the_readme_runs(dataset_path, photos, tmp_path, monkeypatch):
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        shutil.copy(photos[0] / "c2test.jpg", tmp_path / name)
    save_random_run(tmp_path / "runs" / "demo", classes=6, dim=512)
    monkeypatch.chdir(tmp_path)
    names = names_after_the_snippet_of("README.md", dataset_path)
    assert names["answer"].landmark in names["train"].landmark_ids and names["vectors"].shape == (2, 512)
    batch = names["batch"]
    assert batch.images.shape == (32, 128, 128, 3) and batch.labels.shape == batch.ids.shape == (32,)


def test_the_snippet_of_the_format_page_runs(dataset_path):
    names = names_after_the_snippet_of("docs/format.md", dataset_path)
    assert names["jpeg"][:3] == b"\xff\xd8\xff" and len(names["ds"]) == 60
