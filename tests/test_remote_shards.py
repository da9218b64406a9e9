"""Datasets in object storage, through a real S3 protocol server on loopback: whole, once, within the limit, or one
sentence."""
import errno
import gc
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from s3fs import S3FileSystem

from arcshard import urls
from arcshard.console import UserError
from loader import Loader, Selection, View
from loader.read import ShardsAhead
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from shards import CacheConfig, CorruptSample, Dataset, remote, splits
from shards.verify_remote import verify_remote
from tests.faulty_s3 import BUCKET, running

ROOT = Path(__file__).parent.parent
URL = f"s3://{BUCKET}/data"
SHARDS = [f"train-{number:06d}.tar" for number in range(10)]


@pytest.fixture(scope="module")
def packed(photos, tmp_path_factory) -> Path:
    """10 train shards of 6 photos, 3 of val and 2 of test."""
    out = tmp_path_factory.mktemp("remote") / "dataset"
    pack(photos[1], [photos[0]], out, PackOptions(shard_size=6), Engine())
    return out


@pytest.fixture(scope="module")
def server(packed):
    with running() as (front, fs):
        fs.put(str(packed), f"{BUCKET}/data", recursive=True)
        yield front, fs


@pytest.fixture
def front(server, monkeypatch):
    server[0].mend()
    monkeypatch.setattr(urls, "FIRST_PAUSE", 0.001)
    yield server[0]
    server[0].mend()


@pytest.fixture
def config(tmp_path):
    return CacheConfig(str(tmp_path / "cache"), window=3)


def kept(config):
    """What the cache holds, but for its lock."""
    return [path for path in config.path.iterdir() if path.name != remote.LOCK]


def held(config):
    """Bytes of the cache's files while nobody reserves or renames any."""
    watched = remote.Cache(config.path, config.size)
    with watched._locked():
        return sum(file.size for file in watched._files())


def limited(config, packed, shards, **options):
    """The same cache with room for the train split's index and so many of its largest shards."""
    size = (packed / "train.index.npy").stat().st_size + shards * max((packed / name).stat().st_size for name in SHARDS)
    return CacheConfig(config.folder, size_gb=size / 1e9, **options)


def train(config):
    return Dataset(URL, "train", config)


def first(loader, steps):
    return list(itertools.islice(loader, steps))


def joined(batches, field):
    return torch.cat([getattr(batch, field) for batch in batches])


def test_a_url_is_a_dataset_like_the_folder(front, packed, config):
    there, here = train(config), Dataset(packed, "train")
    assert splits(URL, config) == splits(packed) and len(there) == 60 and there.fingerprint == here.fingerprint
    assert [there.read(i) for i in range(60)] == [here.read(i) for i in range(60)]
    assert np.array_equal(there.labels, here.labels) and there.landmark_ids == here.landmark_ids
    assert Dataset(URL, "test", config).truths() == Dataset(packed, "test").truths()
    assert all(front.gets[name] == 1 for name in [*SHARDS, "train.index.npy", "train.labels.npy", "classes.csv"])
    again = train(config)
    assert again.read(0) == here.read(0) and front.gets[SHARDS[0]] == 1 and front.gets["train.index.npy"] == 1
    assert front.gets["dataset.json"] == 4, "read anew each time, so that a changed dataset is noticed"


def test_evaluation_and_training_give_the_pixels_of_the_folder(front, packed, config):
    here, there = Dataset(packed, "train"), train(config)
    one, other = (list(Loader(dataset, batch_size=7, size=32, train=False)) for dataset in (here, there))
    assert torch.equal(joined(one, "images"), joined(other, "images")) and len(joined(other, "ids")) == 60
    loader = Loader(there, batch_size=20, size=32, view=View(flip=0, area=(1, 1), aspect=(.75, 4 / 3)))
    batches = first(loader, 6)
    ids = joined(batches, "ids")
    assert ids.tolist() == loader.stream.sample_at(np.arange(120)).tolist()
    assert [sorted(epoch.tolist()) for epoch in ids.reshape(2, 60)] == [list(range(60))] * 2
    assert joined(batches, "labels").tolist() == here.labels[ids.numpy()].tolist()
    assert all(batch.wait > 0 and batch.replaced == 0 for batch in batches)


def test_two_ranks_share_a_cache_and_read_what_one_rank_reads(front, config):
    """At the same time, each with a cache object of its own: the same pixels, and each shard fetched once."""
    def read(rank):
        loader = Loader(train(config), batch_size=6, size=32, seed=4, rank=rank, world_size=2, num_threads=1)
        return [(batch.images, batch.ids) for batch in first(loader, 10)]

    with ThreadPoolExecutor(2) as ranks:
        halves = [*itertools.chain(*zip(*ranks.map(read, (0, 1))))]
    assert {name: front.gets[name] for name in SHARDS} == {name: 1 for name in SHARDS}
    whole = first(Loader(train(config), batch_size=12, size=32, seed=4), 10)
    assert torch.equal(torch.cat([ids for _, ids in halves]), joined(whole, "ids"))
    assert torch.equal(torch.cat([images for images, _ in halves]), joined(whole, "images"))
    assert {name: front.gets[name] for name in SHARDS} == {name: 1 for name in SHARDS}


def test_resume_continues_the_same_stream(front, config):
    whole = joined(first(Loader(train(config), batch_size=9, size=16), 12), "images")
    begun = Loader(train(config), batch_size=9, size=16)
    first(begun, 5)
    resumed = Loader(train(config), batch_size=9, size=16)
    resumed.load_state_dict(begun.state_dict())
    assert torch.equal(joined(first(resumed, 7), "images"), whole[45:])


def test_another_window_or_a_folder_is_another_stream(front, packed, config):
    state = Loader(train(config), batch_size=6, size=16).state_dict()
    wider = Loader(train(CacheConfig(config.folder, window=4)), batch_size=6, size=16)
    with pytest.raises(UserError, match="window was 3 and is 4; give the old ones, .*--allow-changed-data"):
        wider.load_state_dict(state)
    with pytest.raises(UserError, match="shards was 10 and is None; window was 3 and is None|window was 3 and is None"):
        Loader(Dataset(packed, "train"), batch_size=6, size=16).load_state_dict(state)
    wider.load_state_dict(state, allow_changed_data=True)


def test_the_next_window_comes_while_this_one_is_read(front, packed, config):
    """One batch of the first window: its shards and those of the second arrive, and no others."""
    loader = Loader(train(config), batch_size=1, size=16)
    ahead, positions = ShardsAhead(loader.stream, 0), np.arange(1)
    ahead.wait_for(positions, loader.stream.sample_at(positions))
    for future in ahead._kept.values():
        future.result()
    ahead.close()
    expected = {SHARDS[shard] for window in (0, 1) for shard in loader.stream.shards_of(window)}
    assert {name for name in SHARDS if front.gets[name]} == expected


def test_ranks_fetch_different_shards_of_a_window_at_the_same_time(front, config):
    """Four threads each, ten shards in the window: eight requests are open at once, of eight shards."""
    front.spoil("train-0", "stall", lasting=True)
    ranks = [Loader(train(CacheConfig(config.folder, window=10)), batch_size=8, size=16, rank=rank, world_size=2)
             for rank in (0, 1)]
    loops = [threading.Thread(target=next, args=(iter(loader),)) for loader in ranks]
    for loop in loops:
        loop.start()
    until = time.monotonic() + 60
    while len([name for name in SHARDS if front.gets[name]]) < 8:
        assert time.monotonic() < until
        time.sleep(0.01)
    front.mend()
    for loop in loops:
        loop.join()


def test_the_cache_stays_within_its_limit_and_drops_what_was_used_longest_ago(front, packed, config):
    small = limited(config, packed, 4)
    dataset, most = train(small), 0
    for i in range(60):
        dataset.read(i)
        most = max(most, sum(path.stat().st_size for path in kept(small)))
    assert most <= small.size and len(kept(small)) == 1 + 4
    assert [front.gets[name] for name in SHARDS] == [1] * 10
    dataset.read(59), dataset.read(0)
    assert front.gets[SHARDS[9]] == 1 and front.gets[SHARDS[0]] == 2


def test_a_shard_in_use_is_never_evicted(front, packed, config, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 0.2)
    small = limited(config, packed, 2)
    holder, other = train(small), train(small)
    views = [holder.view(0), holder.view(10)]
    with pytest.raises(UserError, match=r"no room for \d+\.\d kB in the cache .*: running processes use all .*; raise "
                                        "cache.size_gb, lower cache.window, or give each run its own cache.folder"):
        other.view(59)
    assert views[0].tobytes() == other.read(0) and front.gets[SHARDS[0]] == 1
    del views[0]
    assert other.read(59) and other.read(10) and front.gets[SHARDS[1]] == 1


def test_files_that_are_not_of_the_cache_are_left_alone(front, packed, config):
    config.path.mkdir()
    (config.path / "thesis.txt").write_bytes(b"x" * 10**6)
    small = limited(config, packed, 2)
    for i in range(0, 60, 6):
        train(small).read(i)
    assert (config.path / "thesis.txt").stat().st_size == 10**6


def test_a_cache_too_small_for_the_windows_is_one_sentence(front, packed, config):
    small = limited(config, packed, 5, window=3)
    with pytest.raises(UserError, match=r"cache.size_gb 0.\d+ is too small: the shards being read and the next ones "
                                        r"take \d+.\d kB; raise it, or lower cache.window, which is 3"):
        Loader(train(small), batch_size=1, size=16)


@pytest.mark.parametrize("window, batch_size", [(1, 2), (1, 9), (2, 3), (3, 4), (4, 1)])
def test_the_least_cache_that_is_accepted_is_enough(front, config, monkeypatch, window, batch_size):
    """Two ranks in step over two epochs, with an evaluation of val beside them: nobody waits for room in vain."""
    monkeypatch.setattr(remote, "PATIENCE", 10)

    def loaders(size):
        small = CacheConfig(config.folder, size / 1e9, window)
        return [Loader(train(small), batch_size=batch_size, size=16, rank=rank, world_size=2) for rank in (0, 1)]

    enough, too_little = 2**22, 0
    while enough - too_little > 2**10:  # bytes
        middle = (enough + too_little) // 2
        try:
            loaders(middle)
            enough = middle
        except UserError:
            too_little = middle
    for step, _ in zip(range(120 // (2 * batch_size)), zip(*loaders(enough))):
        if step == 5:
            dataset = Dataset(URL, "val", CacheConfig(config.folder, enough / 1e9, window))
            assert sum(len(batch.ids) for batch in Loader(dataset, batch_size=2, size=16, train=False)) == 18
        assert held(config) <= enough


@pytest.mark.parametrize("faults", [
    ["cut"], ["short", "cut"], ["wrong"], ["drop", "drop"], [500, 503, 502, 503], ["cut", 503, "drop", "short", 500]])
def test_what_a_server_may_do_for_a_while(front, packed, config, faults):
    front.spoil("train-000001.tar", *faults)
    assert train(config).read(6) == Dataset(packed, "train").read(6)
    assert front.gets[SHARDS[1]] == len(faults) + 1


@pytest.mark.parametrize("fault, sentence", [
    (503, "failed 12 times in a row, the last time with: .*said SlowDown; check the server .* run the same"),
    ("short", r"failed 12 times in a row, the last time with: [\d,]+ bytes came of the [\d,]+ from 0 on;"),
    ("cut", "failed 12 times in a row, the last time with: "),
    ("drop", "failed 12 times in a row, the last time with: "),
    ("wrong", "does not have the sha256 in dataset.json, in 2 downloads: upload the packed file"),
    (404, "cannot be read .*: check the address"),
    (403, "cannot be read .*: check the address, your rights to it"),
])
def test_what_a_server_may_not_do_for_ever_is_one_sentence(front, config, fault, sentence):
    loader = Loader(train(config), batch_size=2, size=16)
    bad = loader.stream.shards_of(2)[0]
    front.spoil(SHARDS[bad], fault, lasting=True)
    seen = 0
    with pytest.raises(UserError, match=f"^{URL}/{SHARDS[bad]} {sentence}"):
        for _ in loader:
            seen += 1
    assert seen >= (2 * 18 - 2 * 6) // 2, "what came before the third window was handed out, but for what DALI had"
    front.spoil("")
    first(loader, 12)
    assert loader.position > 2 * 18


def test_a_server_that_is_gone_is_one_sentence(front, config, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=f"^{URL}/dataset.json failed 12 times in a row, .*Could not connect"):
        train(config)
    S3FileSystem.clear_instance_cache()


def test_what_is_no_dataset_is_one_sentence(front, config):
    with pytest.raises(UserError, match="s3://shards/none is not a dataset, it has no dataset.json: check the address"):
        Dataset("s3://shards/none", "train", config)
    with pytest.raises(UserError, match="has a protocol that fsspec does not know"):
        Dataset("nowhere://shards/none", "train", config)
    with pytest.raises(UserError, match=f"{URL} has no split 'dev': choose one of test, train, val"):
        Dataset(URL, "dev", config)


def test_a_slow_server_is_waited_for_and_the_wait_is_reported(front, config):
    front.spoil(SHARDS[0], "stall")
    loader = Loader(train(config), batch_size=60, size=16)
    threading.Timer(1, front.release.set).start()
    batch, = first(loader, 1)
    assert batch.wait > 0.9 and sorted(batch.ids.tolist()) == list(range(60))


def test_a_server_that_falls_silent_is_asked_again(front, packed, config, monkeypatch):
    monkeypatch.setattr(S3FileSystem, "read_timeout", 0.5)  # seconds; else 15
    S3FileSystem.clear_instance_cache()
    front.spoil(SHARDS[1], "stall")
    assert train(config).read(6) == Dataset(packed, "train").read(6) and front.gets[SHARDS[1]] == 2
    S3FileSystem.clear_instance_cache()


def test_a_retry_changes_nobodys_random_numbers(front, config):
    random.seed(0)
    expected, _ = random.random(), random.seed(0)
    front.spoil(SHARDS[1], 503, 503)
    train(config).read(6)
    assert random.random() == expected


def test_leaving_while_a_server_stalls_ends_the_threads(front, config):
    loader = Loader(train(config), batch_size=4, size=16)
    stalled = loader.stream.shards_of(1)[0]
    front.spoil(SHARDS[stalled], "stall")
    batches = iter(loader)
    next(batches)
    threading.Timer(0.2, front.release.set).start()
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shards")]


@pytest.fixture
def heeds_ctrl_c():
    """Programs that a shell starts in the background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_while_a_batch_waits_for_its_shard_ends_the_threads(front, config):
    front.spoil(SHARDS[0], "stall")
    loader = Loader(train(config), batch_size=60, size=16)
    before = {*threading.enumerate()}

    def interrupt() -> None:
        main, waited = threading.main_thread().ident, 0
        while waited < 10:  # half a second without a break: it is the batch that waits, not a thread's start
            here = sys._current_frames()[main].f_code is threading.Condition.wait.__code__
            waited = waited + 1 if front.gets[SHARDS[0]] and here else 0
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        front.release.set()

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        next(iter(loader))
    interrupter.join()
    more = {thread.name for thread in {*threading.enumerate()} - before}
    assert not [name for name in more if name.startswith(("shards", "ThreadPoolExecutor"))], "only the server's own"


READ = """
import sys
from shards import CacheConfig, Dataset
dataset = Dataset("{url}", "train", CacheConfig(sys.argv[1]))
print(sum(len(dataset.read(i)) for i in range(60)))
"""


def reader(config):
    return subprocess.Popen([sys.executable, "-c", READ.format(url=URL), config.folder], cwd=ROOT,
                            stdout=subprocess.PIPE)


def test_processes_that_want_the_same_shards_fetch_them_once(front, packed, config):
    readers = [reader(config) for _ in range(3)]
    expected = sum(len(Dataset(packed, "train").read(i)) for i in range(60))
    assert [int(process.communicate(timeout=60)[0]) for process in readers] == [expected] * 3
    assert {name: front.gets[name] for name in SHARDS} == {name: 1 for name in SHARDS}
    assert not [path for path in kept(config) if path.name.endswith(remote.PART)]


MANY = """
import random, sys
from concurrent.futures import ThreadPoolExecutor
from shards import CacheConfig, Dataset
path, folder, size_gb, seed = sys.argv[1:]
here, dataset = Dataset(path), Dataset("file://" + path, "train", CacheConfig(folder, float(size_gb)))
rows = random.Random(seed).choices(range(60), k=500)
with ThreadPoolExecutor(2) as pool:
    assert list(pool.map(dataset.read, rows)) == [here.read(row) for row in rows]
"""


def test_many_processes_and_threads_never_exceed_the_limit(packed, config):
    """Room for 7 of 10 shards, and up to 6 in use at once; looked at while nobody reserves."""
    small = limited(config, packed, 7)
    processes = [subprocess.Popen([sys.executable, "-c", MANY, packed, config.folder, str(small.size_gb), str(seed)],
                                  cwd=ROOT) for seed in range(3)]
    most = 0
    while any(process.poll() is None for process in processes):
        most = max(most, held(config))
    assert [process.returncode for process in processes] == [0, 0, 0] and 0 < most <= small.size


def test_kill_9_in_a_fetch_leaves_a_cache_that_goes_on(front, packed, config):
    front.spoil(SHARDS[3], "stall")
    process = reader(config)
    until = time.monotonic() + 60
    while not front.gets[SHARDS[3]]:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path for path in kept(config) if path.name.endswith(remote.PART)], "it died in the middle"
    assert train(config).read(18) == Dataset(packed, "train").read(18)
    assert front.gets[SHARDS[2]] == 1 and front.gets[SHARDS[3]] == 2
    assert not [path for path in kept(config) if path.name.endswith(remote.PART)]


def test_what_a_kill_left_makes_way_for_others(front, packed, config):
    dataset = train(config)
    dataset.read(0)
    (config.path / ("ab" * 32 + remote.PART)).write_bytes(b"x" * 10**6)
    used = sum(path.stat().st_size for path in kept(config))
    small = CacheConfig(config.folder, size_gb=used / 1e9)
    assert train(small).read(59) and not (config.path / ("ab" * 32 + remote.PART)).exists()


def test_a_cut_file_in_the_cache_is_fetched_again_and_a_corrupt_one_named(front, packed, config):
    dataset = train(config)
    path = config.path / dataset.manifest["files"][SHARDS[0]]["sha256"]
    sample = dataset.read(0)
    os.truncate(path, 1000)
    assert train(config).read(0) == sample and front.gets[SHARDS[0]] == 2
    row = dataset.index[0]
    with open(path, "r+b") as f:
        f.seek(int(row["offset"]) + 50)
        f.write(b"rot")
    with pytest.raises(CorruptSample, match=rf"{row['key'].decode()} of split train is damaged: .* train-000000.tar"):
        train(config).read(0)


def test_a_corrupt_index_in_the_cache_is_fetched_again(front, packed, config):
    path = config.path / train(config).manifest["files"]["train.index.npy"]["sha256"]
    labels = train(config).index.copy()
    with open(path, "r+b") as f:
        f.seek(200)
        f.write(b"rot")
    assert np.array_equal(train(config).index, labels) and front.gets["train.index.npy"] == 2


def test_a_corrupt_sample_gives_way_to_one_of_its_window(front, packed, config, capfd):
    dataset = train(config)
    row = dataset.index[5]
    dataset.read(5)
    with open(config.path / dataset.manifest["files"][SHARDS[row["shard"]]]["sha256"], "r+b") as f:
        f.seek(int(row["offset"]) + 50)
        f.write(b"rot")
    loader = Loader(dataset, batch_size=20, size=16)
    batches = first(loader, 3)
    ids = joined(batches, "ids")
    assert sum(batch.replaced for batch in batches) == 1 and 5 not in ids.tolist()
    assert (ids.numpy() != loader.stream.sample_at(np.arange(60))).sum() == 1
    assert row["key"].decode() in capfd.readouterr().err


def test_a_changed_dataset_is_noticed_and_never_mixed(server, front, photos, packed, config, tmp_path):
    fs, url = server[1], f"s3://{BUCKET}/changing"
    other = tmp_path / "other"
    pack(photos[1], [photos[0]], other, PackOptions(shard_size=6, short_side=100), Engine())
    for folder in (packed, other):
        fs.put(f"{folder}/", f"{BUCKET}/changing/", recursive=True)
        assert Dataset(url, "train", config).read(3) == Dataset(folder, "train").read(3)


def test_verify_names_what_differs_in_the_bucket(server, front, packed, capfd):
    fs, url = server[1], f"s3://{BUCKET}/verified"
    fs.put(f"{packed}/", f"{BUCKET}/verified/", recursive=True)
    assert verify_remote(url) == [] and verify_remote(URL) == []
    fs.rm_file(f"{BUCKET}/verified/train-000003.tar")
    fs.pipe_file(f"{BUCKET}/verified/train-000003 (1).tar", b"copy")
    fs.pipe_file(f"{BUCKET}/verified/train-000004.tar", (packed / SHARDS[4]).read_bytes()[:-512])
    fs.pipe_file(f"{BUCKET}/verified/classes.csv", (packed / "classes.csv").read_bytes().upper())
    size = (packed / SHARDS[4]).stat().st_size
    assert verify_remote(url) == [
        "train-000003 (1).tar: an extra file that dataset.json does not list", "train-000003.tar: missing",
        f"train-000004.tar: has {size - 512} bytes, was packed with {size}",
        "classes.csv: its sha256 is not the one it was packed with"]
    with pytest.raises(UserError, match="s3://shards/none is not a dataset, it has no dataset.json"):
        verify_remote("s3://shards/none")


def test_a_mixture_with_a_dataset_far_away_is_refused(front, packed, config):
    with pytest.raises(UserError, match=f"select.mix draws from all shards .*: copy {URL} to a disk"):
        Loader(train(config), batch_size=2, size=16, selection=Selection(mix={str(packed): 1.0}))


def test_subsets_need_only_their_shards(front, config, tmp_path):
    dataset = train(config)
    (tmp_path / "subset").write_bytes(b"\n".join(dataset.index["key"][[0, 1, 30]]))
    loader = Loader(dataset, batch_size=3, size=16, selection=Selection(subset=str(tmp_path / "subset")))
    assert {*joined(first(loader, 4), "ids").tolist()} == {0, 1, 30}
    assert {name for name in SHARDS if front.gets[name]} == {SHARDS[0], SHARDS[5]}


def test_dropped_loops_leave_no_thread_and_no_open_file(front, config):
    def count():
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    dataset = train(config)
    for _ in range(3):
        first(Loader(dataset, batch_size=8, size=16), 2)
    before = count()
    for _ in range(10):
        first(Loader(dataset, batch_size=8, size=16), 2)
    assert count() == before


def test_a_full_disk_is_one_sentence(front, config, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    dataset = train(config)
    assert len(dataset.index) == 60
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="no room left for .*No space left on device"):
        dataset.read(0)
    assert not [path for path in kept(config) if path.name.endswith(remote.PART)]


def test_a_cache_that_cannot_be_locked_is_one_sentence(front, config, monkeypatch):
    def no_flock(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    dataset = train(config)
    monkeypatch.setattr(remote.fcntl, "flock", no_flock)
    with pytest.raises(UserError, match="without locks: set cache.folder to a local folder"):
        dataset.read(0)


def test_wrong_options_are_one_sentence():
    with pytest.raises(ValueError, match="cache.size_gb is 0: give a positive number"):
        CacheConfig(size_gb=0)
    with pytest.raises(ValueError, match="cache.window is 300: give 1 to 256"):
        CacheConfig(window=300)


def test_the_benchmark_says_what_a_step_waits_for(front, packed, module, monkeypatch, capsys):
    words = ["--data", URL, "--folder", packed, "--rounds", 1, "--batch-size", 8, "--size", 16, "--window", 3]
    monkeypatch.setattr(sys, "argv", ["object_storage.py", *map(str, words)])
    module("object_storage").main()
    said = capsys.readouterr().out
    assert f"{URL}: start " in said and said.count("waiting in the first epoch") == 2


@pytest.mark.heavy
def test_training_and_its_use_by_command(front, photos, config, tmp_path, call, on_ranks):
    """Two ranks train; evaluation and prediction read what they left in the cache."""
    options = ["--model.backbone", "test_efficientnet", "--model.weights", "none", "--model.dim", "16", "--train.size",
               "32", "--train.global_batch", "12", "--train.epochs", "2", "--train.log_every", "1", "--train.device",
               "cpu", "--loader.num_threads", "1", "--cache.folder", config.folder, "--cache.window", "3"]
    run = tmp_path / "run"
    done = on_ranks(2, "train.py", *options, "--data", URL, "--out", run)
    assert done.returncode == 0, done.stderr
    assert {name: front.gets[name] for name in SHARDS} == {name: 1 for name in SHARDS}
    done = call("evaluate.py", "--run", run, "--data", URL)
    assert done.returncode == 0 and "recall@1" in done.stdout, done.stderr
    assert {name: front.gets[name] for name in SHARDS} == {name: 1 for name in SHARDS}
    done = call("predict.py", "--run", run, "--index", URL, "--images", photos[0], "--out", tmp_path / "submission.csv")
    assert done.returncode == 0 and (tmp_path / "submission.csv").is_file(), done.stderr
    shutil.rmtree(config.path)
    done = call("-m", "shards", "info", URL, env=os.environ | {"XDG_CACHE_HOME": config.folder})
    assert done.returncode == 0 and "train: 60 samples in 10 shards" in done.stdout, done.stderr
