"""README and docs lead to what is there, are up to date, make a site, and their Python runs."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from docs import configuration
from tests.random_run import save_random_run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted(path for folder in (ROOT, ROOT / "docs", ROOT / "benchmarks") for path in folder.glob("*.md"))
CONTRACT = {"preprocess/clean.py", "preprocess/make_shards.py", "-m shards", "train.py", "evaluate.py", "predict.py",
            "report.py", "benchmarks/throughput.py"}


def test_the_readme_shows_the_commands_of_the_contract():
    assert CONTRACT <= set(re.findall(r"^(?:python|torchrun --nproc-per-node 8) ((?:-m )?[\w./]+)", README, re.M))


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"@[A-Z]+@|TODO|TBD", README)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub names them; of equal headings only the first has a name that lasts."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere_and_named_files_exist(page):
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", without_blocks(text)):
        if "://" not in target:
            linked = page.parent / target if target else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"
    for name in re.findall(r"\b(?:configs|docs|tests|benchmarks|preprocess)/[a-z0-9][\w.-]*\.(?:py|md|yaml|sh)\b",
                           text):
        assert (ROOT / name).exists(), name


def test_the_page_of_options_is_up_to_date():
    assert configuration.PAGE.read_text() == configuration.page(), "run python docs/configuration.py"


def test_every_page_is_in_the_site(tmp_path):
    pytest.importorskip("mkdocs")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--site-dir", tmp_path], cwd=ROOT, text=True,
                          capture_output=True)  # strict: a link that leads nowhere and a page in no menu are errors
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists() and (tmp_path / "docs" / "training.html").exists()


SNIPPETS = {page.relative_to(ROOT).as_posix(): "".join(re.findall(r"^```python\n(.*?)^```", page.read_text(),
                                                                  re.M | re.S)) for page in PAGES}
SNIPPETS.pop("docs/export.md")  # tests/test_export.py runs those, on files that it exports
GIVEN = {"docs/benchmarks.md": {"ranks": np.arange(4)[:, None], "gnd": [{"easy": [2], "hard": [1], "junk": [0]}]}}


@pytest.fixture
def demo(dataset_path, photos, tmp_path, monkeypatch):
    """The working directory that the pages speak of: a trained run, its dataset and a few photos."""
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        shutil.copy(photos[0] / "c2test.jpg", tmp_path / name)
    save_random_run(tmp_path / "runs" / "demo", classes=6, dim=512)
    (tmp_path / "data" / "demo").mkdir(parents=True)
    (tmp_path / "data" / "demo" / "dataset").symlink_to(dataset_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", [name for name, code in SNIPPETS.items() if code])
def test_python_on_a_page_runs(page, demo):
    exec(SNIPPETS[page], dict(GIVEN.get(page, {})))


def test_the_snippet_of_the_readme_gives_what_its_comments_say(demo):
    names: dict = {}
    exec(SNIPPETS["README.md"], names)
    assert names["answer"].landmark in names["train"].landmark_ids and names["vectors"].shape == (2, 512)
    batch = names["batch"]
    assert batch.images.shape == (32, 128, 128, 3) and batch.labels.shape == batch.ids.shape == (32,)
