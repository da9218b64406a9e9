"""What needs a package of an extra says which extra, and nothing else needs it."""
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("arcshard", "shards", "preprocess", "loader", "model", "training", "retrieval", "pages")


def without(package: str, *words: str) -> subprocess.CompletedProcess:
    """The command arcshard, where the package cannot be imported."""
    program = f"import sys; sys.modules['{package}'] = None; from arcshard.__main__ import command; command()"
    return subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, text=True, capture_output=True,
                          timeout=120)


@pytest.mark.parametrize("package, words, sentence", [
    ("nvidia", ["train", "--data", "d", "--out", "o"],
     "loading photos needs NVIDIA DALI, which is missing: pip install 'arcshard[cuda13]', or 'arcshard[cuda12]'"),
    ("flask", ["serve", "d", "--run", "r"], "serving needs the package flask, which is missing: pip install "
                                            "'arcshard[serve]'"),
    ("waitress", ["serve", "d", "--run", "r"], "serving needs the package waitress, which is missing: pip install "
                                               "'arcshard[serve]'")])
def test_a_missing_package_is_a_sentence(package, words, sentence):
    done = without(package, *words)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("package, words", [("flask", ["retrieval", "whiten"]), ("nvidia", ["pack"])])
def test_other_commands_do_without(package, words):
    assert without(package, *words, "--help").returncode == 0


def test_every_extra_that_a_sentence_names_exists():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pages = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")] + [*ROOT.glob("docs/*.md")]
    named = {name for page in pages for name in re.findall(r"arcshard\[(\w+)\]", page.read_text())}
    assert {"cuda13", "serve", "export", "rerank", "s3", "demo", "duplicates"} <= named
    assert named <= set(setup["options.extras_require"])
    assert not [page for page in pages if page.suffix == ".py" and re.search(r"install (-e )?'\.\[", page.read_text())]
