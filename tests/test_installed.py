"""What pip installs: the command arcshard, with presets, templates and static files, away from the repository."""
import configparser
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from arcshard.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the project as pip installs it, built from a copy, as setuptools builds inside the source."""
    source, target = tmp_path_factory.mktemp("source") / "copy", tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "data", "runs", "tests", "build", "__pycache__"))
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
                    "--disable-pip-version-check", "--target", target, source], check=True)
    return target


@pytest.fixture
def arcshard(site, tmp_path):
    def call(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, site / "bin" / "arcshard", *words], cwd=tmp_path, text=True,
                              env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, timeout=120)
    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name):
    assert callable(import_module(COMMANDS[name][0]).main)


def test_every_script_and_module_has_a_command():
    runs = {path.relative_to(ROOT).with_suffix("") for part in (".", "preprocess", "shards", "loader", "training",
                                                                "retrieval", "model", "pages")
            for path in (ROOT / part).glob("*.py") if "\n    run(main)\n" in path.read_text()}
    assert {".".join(path.parts) for path in runs} == {module for module, _, _ in COMMANDS.values()}


def test_installed_files_are_those_of_the_repository(site):
    for pattern in ("configs/**/*.yaml", "pages/*.j2", "pages/*.css", "retrieval/web/static/*"):
        ours = {path.relative_to(ROOT) for path in ROOT.glob(pattern)}
        assert ours and ours == {path.relative_to(site) for path in site.glob(pattern)}


def test_commands_work_away_from_the_repository(arcshard):
    assert arcshard("--version").stdout.startswith("arcshard 0.")
    assert "usage: arcshard clean" in arcshard("clean", "--help").stdout
    done = arcshard("train", "--config", "configs/demo.yaml", "--data", "nowhere", "--out", "run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "there is no folder nowhere" in done.stderr
    assert arcshard("clean").returncode == 2


def test_the_container_installs_what_the_readme_does_and_runs_without_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    install, = [line for line in lines if "pip install" in line]
    extras = install.split("[")[1].split("]")[0].replace("cuda${CUDA}", "cuda13").split(",")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(extras) <= set(setup["options.extras_require"]) and "ARG CUDA=13" in lines
    assert "pip install -e '.[cuda13]'" in (ROOT / "README.md").read_text() and extras[0] == "cuda13"
    assert lines.index("USER arcshard") > lines.index(install) and 'ENTRYPOINT ["arcshard"]' in lines


def test_the_installed_package_packs_trains_and_answers(arcshard, photos, tmp_path):
    folder, table = photos
    table.to_csv(tmp_path / "samples.csv", index=False)
    for words in (["pack", "--samples", "samples.csv", "--images", folder, "--out", "dataset"],
                  ["train", "--config", "configs/demo.yaml", "--data", "dataset", "--out", "run", "--train.epochs", "1",
                   "--model.backbone", "test_efficientnet", "--model.weights", "none", "--train.global_batch", "8"],
                  ["evaluate", "--run", "run", "--data", "dataset"],
                  ["predict", "--run", "run", "--index", "dataset", folder / "c2test.jpg"]):
        done = arcshard(*map(str, words))
        assert done.returncode == 0, done.stderr
    assert str(folder / "c2test.jpg") in done.stdout
