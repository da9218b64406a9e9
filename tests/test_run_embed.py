"""Embedding splits: resumed, shared among ranks, in several views, refused by name; all on real DALI."""
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import retrieval.__main__ as command
from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint, Weights
from arcshard.console import UserError
from arcshard.distributed import World
from arcshard.files import folder_lock
from loader import Loader, View
from model import ModelConfig, build_embedder
from retrieval import Embeddings, nearest
from retrieval.run import embed
from retrieval.run.embed import embed_rows, embed_split, load_kept, write_split
from retrieval.run.model import Tta, embed_views, load_model, read_tta
from shards import Dataset


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    out.mkdir()
    save_run(out, ModelConfig(backbone="test_efficientnet", weights="none", dim=24))
    return out


def save_run(out, config):
    """A run as train.py leaves it, its weights random."""
    torch.manual_seed(0)
    options = {"model": asdict(config), "view": asdict(View()), "head": {"centers": 1},
               "train": {"size": 48, "device": "cpu"}}
    weights = Weights(build_embedder(config).state_dict(), {"weight": torch.randn(6, 24)})
    checkpoint.save(out, Checkpoint(options, weights))


@pytest.fixture(scope="module")
def whole(run_folder, dataset_path):
    """All 60 train photos, in memory."""
    return embed_split(load_model(run_folder), Dataset(dataset_path), None)


@pytest.fixture
def retrieval(monkeypatch, capsys):
    """Run `python -m retrieval` here; returns what it printed."""
    def call_command(*words):
        monkeypatch.setattr("sys.argv", ["retrieval", *map(str, words)])
        command.main()
        return capsys.readouterr().out
    return call_command


def test_any_rows_are_embedded_as_among_all(run_folder, dataset_path, whole):
    found = np.concatenate([*embed_rows(load_model(run_folder), Dataset(dataset_path), range(17, 43), batch=10)])
    np.testing.assert_allclose(found, whole.vectors[17:43], atol=1e-5)


def test_what_was_finished_before_a_kill_is_not_embedded_again(run_folder, dataset_path, whole, tmp_path, monkeypatch):
    model, dataset, seen = load_model(run_folder), Dataset(dataset_path), []

    def rows(model, dataset, rows, batch, show):
        for start in range(rows.start, rows.stop, 8):
            if len(seen) == 5:
                seen.append("killed")
                raise KeyboardInterrupt
            seen.append(start)
            yield whole.vectors[start:min(start + 8, rows.stop)]

    monkeypatch.setattr("retrieval.run.embed.embed_rows", rows)
    with pytest.raises(KeyboardInterrupt):
        write_split(model, dataset, tmp_path / "s", batch=8, part_rows=16)
    with pytest.raises(UserError, match="holds no embeddings"):
        Embeddings.load(tmp_path / "s")
    write_split(model, dataset, tmp_path / "s", batch=8, part_rows=16)
    assert seen == [0, 8, 16, 24, 32, "killed", 32, 40, 48, 56], "two parts of four were kept"
    np.testing.assert_array_equal(Embeddings.load(tmp_path / "s").vectors, whole.vectors)
    assert not (tmp_path / "s" / "parts").exists()


def test_a_damaged_store_is_named_and_made_again(run_folder, dataset_path, whole, tmp_path, capsys):
    model, dataset = load_model(run_folder), Dataset(dataset_path)
    write_split(model, dataset, tmp_path / "store")
    damaged = bytearray((tmp_path / "store/embeddings.npy").read_bytes())
    damaged[-2] ^= 1
    (tmp_path / "store/embeddings.npy").write_bytes(damaged)
    assert np.array_equal(embed_split(model, dataset, tmp_path / "store").vectors, whole.vectors)
    assert f"{tmp_path}/store is damaged or of another version: it is made again" in capsys.readouterr().err


def test_ranks_write_one_store_together(run_folder, dataset_path, whole, tmp_path, monkeypatch):
    """Rank 1 before rank 0, which writes the store: gloo's barriers are tested by a real pair below."""
    monkeypatch.setattr(World, "any", lambda self, flag: flag)
    model, dataset = load_model(run_folder), Dataset(dataset_path)
    monkeypatch.setattr(embed.Parts, "missing", lambda self: [0, 1, 2, 3])
    embed.Parts(tmp_path, embed.provenance_of(model, dataset), 60, "float32", 16).begin()
    for rank in (1, 0):
        write_split(model, dataset, tmp_path, world=World(rank, 2, torch.device("cpu")), part_rows=16)
    np.testing.assert_allclose(Embeddings.load(tmp_path).vectors, whole.vectors, atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_views_are_the_mean_of_their_embeddings(run_folder, dataset_path, flip):
    """Against the formula in float64, and a photo's mirror image gets the photo's embedding if both are seen."""
    model, generator = load_model(run_folder), torch.Generator().manual_seed(0)
    views = [torch.randint(256, (3, side, side, 3), generator=generator).byte() for side in (48, 64)]
    seen = [images for view in views for images in (view, *([view.flip(2)] if flip else []))]
    with torch.inference_mode():
        parts = [F.normalize(model.embedder(images, torch.ones(3, 3)).double()) for images in seen]
    expected = F.normalize(torch.stack(parts).mean(0)).numpy()
    np.testing.assert_allclose(embed_views(model.embedder, views, flip, torch.ones(3, 3)), expected, atol=1e-6)


def test_views_have_a_store_of_their_own(retrieval, run_folder, dataset_path, whole, tmp_path):
    said = retrieval("embed", "--run", run_folder, "--data", dataset_path, "--splits", "train", "--out", tmp_path,
                     "--tta", "flip,1.25", "--dtype", "float16")
    store = tmp_path / "run" / "train.flip,1.25"
    assert f"{store}: 60 x 24 float16" in said
    kept = Embeddings.load(store)
    assert (kept.provenance.tta, kept.vectors.dtype, kept.keys) == ("flip,1.25", np.float16, whole.keys)
    assert not np.allclose(kept.vectors, whole.vectors, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(kept.vectors.astype(float), axis=1), 1, atol=2e-3)


def test_a_size_has_stores_of_its_own_and_shows_larger_images(retrieval, run_folder, dataset_path, tmp_path):
    words = "embed", "--run", run_folder, "--data", dataset_path, "--splits", "val", "--out", tmp_path
    retrieval(*words)
    assert f"{tmp_path}/run/val.64px: 18 x 24 float32" in retrieval(*words, "--size", "64")
    retrieval(*words, "--size", "64", "--tta", "flip")
    assert f"{tmp_path}/run/val: 18 x 24" in retrieval(*words, "--size", "48"), "the run's own"
    own, large, both = (Embeddings.load(tmp_path / "run" / name) for name in ("val", "val.64px", "val.64px,flip"))
    assert [(kept.provenance.size, kept.provenance.tta) for kept in (own, large, both)] == [
        (48, "none"), (64, "none"), (64, "flip")]
    model, batch = load_model(run_folder), next(iter(Loader(Dataset(dataset_path, "val"), batch_size=18, size=64,
                                                            train=False)))
    found = embed_views(model.embedder, [batch.images], False, batch.jitter)
    np.testing.assert_allclose(large.vectors, found, atol=1e-5)
    with pytest.raises(UserError, match="of different weights, views or sizes, .*: embed both with one run"):
        retrieval("neighbors", "--queries", tmp_path / "run/val", "--gallery", tmp_path / "run/val.64px", "--out", "n")
    with pytest.raises(UserError, match="--size is 0: give 1 to 4096"):
        retrieval(*words, "--size", "0")


def test_a_store_without_size_holds_what_older_versions_showed(run_folder, dataset_path, whole, tmp_path):
    """They showed whole frames at the run's size: those of view.side are embedded again."""
    dataset, model = Dataset(dataset_path), load_model(run_folder)
    replace(whole, provenance=replace(whole.provenance, size=0)).save(tmp_path)
    cut = replace(model, view=View(framing="short", side=0.875).in_evaluation())
    assert load_kept(tmp_path, model, dataset) and not load_kept(tmp_path, cut, dataset)
    assert not load_kept(tmp_path, load_model(run_folder, tta=Tta(size=64)), dataset)


def test_a_size_that_the_network_cannot_take_is_a_sentence(tmp_path):
    save_run(tmp_path, ModelConfig(backbone="test_vit", weights="none", pooling="avg", dim=24))
    with pytest.raises(UserError, match="test_vit cannot take images of 50 × 50 pixels .*: give 48 or 64, or"):
        load_model(tmp_path, tta=Tta(size=50))


def test_stores_of_something_else_are_refused(retrieval, run_folder, dataset_path, whole, tmp_path):
    words = ("embed", "--run", run_folder, "--data", dataset_path, "--splits", "val", "--out", tmp_path)
    retrieval(*words)
    before = (tmp_path / "run" / "val" / "embeddings.npy").stat().st_mtime_ns
    retrieval(*words)
    assert (tmp_path / "run" / "val" / "embeddings.npy").stat().st_mtime_ns == before, "finished: nothing is done"
    with pytest.raises(UserError, match="val has embeddings of other weights, .*: choose another --out, or delete it"):
        retrieval(*words, "--dtype", "float16")


def test_a_broken_network_is_a_sentence_and_leaves_no_store(run_folder, dataset_path, tmp_path):
    model = load_model(run_folder)
    with torch.no_grad():
        model.embedder.neck[0].bias[3] = torch.nan
    with pytest.raises(UserError, match="hold NaN or infinity in 18 of 18 rows, first .*: choose anoth"):
        write_split(model, Dataset(dataset_path, "val"), tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_two_writers_are_refused(run_folder, dataset_path, tmp_path):
    with folder_lock(tmp_path), pytest.raises(UserError, match="is locked: another process writes into it"):
        write_split(load_model(run_folder), Dataset(dataset_path, "val"), tmp_path)


@pytest.mark.parametrize("text, tta", [("none", Tta()), ("flip", Tta(True)), ("flip,0.8,1.25", Tta(True, (0.8, 1.25))),
                                       ("1.5", Tta(False, (1.5,)))])
def test_views_are_read_from_their_name(text, tta):
    assert read_tta(text) == tta and tta.name == text
    assert tta.sizes(100) == [100, *(round(100 * scale) for scale in tta.scales)]


@pytest.mark.parametrize("words, sentence", [
    (["embed", "--tta", "mirror"], "mirror names no views: give none, or flip and scales of 0.1 to 4"),
    (["embed", "--tta", "nan"], "scales of 0.1 to 4"),
    (["neighbours"], "neighbours is now neighbors"),
    (["rerank", "--answers", "a.yaml"], "--answers is now --pipeline"),
    (["serve", "--answers"], "--answers is now --pipeline")])
def test_wrong_words_are_a_sentence(retrieval, capsys, words, sentence):
    with pytest.raises(SystemExit) as ended:
        retrieval(*words, "--run", "r", "--data", "d")
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize("words, sentence", [
    (["--run", "r", "--batch", "0"], "--batch is 0: give at least 1"),
    (["--run", "a/x", "b/x", "--out", "o"], "two runs have the same name, .*: leave out --out, or rename one")])
def test_wrong_words_are_refused(retrieval, words, sentence):
    with pytest.raises(UserError, match=sentence):
        retrieval("embed", "--data", "d", *words)


def test_neighbors_of_stores(retrieval, run_folder, whole, tmp_path):
    whole.save(tmp_path / "g")
    said = retrieval("neighbors", "--queries", tmp_path / "g", "--gallery", tmp_path / "g", "--k", 3, "--out",
                     tmp_path / "new" / "n.npz")
    assert "60 queries, 3 of 60 each" in said
    with np.load(tmp_path / "new" / "n.npz") as found:
        assert (found["rows"].shape, found["scores"].dtype) == ((60, 3), np.float32)
        assert (found["rows"][:, 0] == np.arange(60)).all()
    replace(whole, provenance=replace(whole.provenance, model="other")).save(tmp_path / "o")
    words = ("neighbors", "--queries", tmp_path / "g", "--out", tmp_path / "n.npz", "--gallery")
    with pytest.raises(UserError, match="g and .*o are of different weights, views or sizes"):
        retrieval(*words, tmp_path / "o")
    with pytest.raises(UserError, match="g: k is 61: give 1 to 60"):
        retrieval(*words, tmp_path / "g", "--k", 61)
    nothing = replace(whole, vectors=whole.vectors[:0], keys=[], labels=whole.labels[:0], landmark_ids=[])
    nothing.save(tmp_path / "e")
    with pytest.raises(UserError, match="e: k is .*: give 1 to 0, the gallery's rows"):
        retrieval(*words, tmp_path / "e")
    with pytest.raises(UserError, match="e holds no embeddings, and so no queries to find neighbors for"):
        retrieval("neighbors", "--queries", tmp_path / "e", "--gallery", tmp_path / "g", "--out", tmp_path / "m.npz")


@pytest.mark.heavy
def test_two_ranks_embed_and_search_as_one_process_does(on_ranks, run_folder, dataset_path, whole, tmp_path):
    done = on_ranks(2, "-m", "tests.embedding_ranks", "embed", "--run", run_folder, "--data", dataset_path, "--splits",
                    "train", "--out", tmp_path)
    assert done.returncode == 0 and done.stdout.count("60 x 24") == 1, done.stderr
    assert {line for line in done.stdout.splitlines() if line.startswith("rank")} == {
        "rank 0: part 0", "rank 0: part 1", "rank 1: part 2", "rank 1: part 3"}
    store = tmp_path / "run" / "train"
    np.testing.assert_allclose(Embeddings.load(store).vectors, whole.vectors, atol=1e-5)
    # Small integers: every product is exact, whatever the threads, and mostly tied. Three chunks, one and two a rank.
    queries, gallery = (np.random.default_rng(n).integers(-1, 2, (n, 24)).astype(np.float32) for n in (40, 40_000))
    for name, vectors in (("q", queries), ("g", gallery)):
        count = len(vectors)
        replace(whole, vectors=vectors, keys=[f"{row}" for row in range(count)], labels=np.zeros(count, np.int64),
                landmark_ids=[""] * count).save(tmp_path / name)
    done = on_ranks(2, "-m", "retrieval", "neighbors", "--queries", tmp_path / "q", "--gallery", tmp_path / "g",
                    "--out", tmp_path / "n.npz")
    assert done.returncode == 0 and "40 queries, 10 of 40,000 each" in done.stdout, done.stderr
    with np.load(tmp_path / "n.npz") as found:
        scores, rows = nearest(queries, gallery, 10)
        assert (found["scores"] == scores).all() and (found["rows"] == rows).all()
