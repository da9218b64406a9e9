"""A dataset written to object storage, through a real S3 protocol server on loopback, has the bytes of a local one."""
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from arcshard.console import UserError
from arcshard.files import sha256
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.output import RemoteOutput, open_output
from preprocess.packing.pack import pack

OPTIONS = PackOptions(shard_size=20)


@pytest.fixture(scope="module")
def s3():
    """An fsspec file system of an S3 server with the empty bucket `bucket`; its settings are in the environment."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "k",
                            "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # of other tests' servers
        fs = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        fs.mkdir("bucket")
        yield fs
    server.stop()


@pytest.fixture(scope="module")
def packed(photos, tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("packed") / "out"
    pack(photos[1], [photos[0]], out, OPTIONS, Engine())
    return {path.name: sha256(path) for path in out.iterdir()}


def digests(s3, folder: str, tmp_path: Path) -> dict[str, str]:
    s3.get(folder, str(tmp_path / "fetched"), recursive=True)
    return {path.name: sha256(path) for path in (tmp_path / "fetched").iterdir()}


def test_the_command_writes_the_same_bytes_and_says_so_again(s3, photos, packed, tmp_path, process):
    photos[1].to_csv(tmp_path / "samples.csv", index=False)
    command = ["preprocess/make_shards.py", "--samples", tmp_path / "samples.csv", "--images", photos[0],
               "--out", "s3://bucket/by-command", "--shard-size", 20, "--workers", 2]
    done = process(*command)
    assert done.returncode == 0, done.stderr
    assert "train: 60 photos packed, 0 rejected, 3 shards" in done.stdout
    assert digests(s3, "bucket/by-command", tmp_path) == packed
    assert process(*command).stdout.startswith("nothing to do: s3://bucket/by-command is already packed")


def test_a_kill_in_the_middle_loses_nothing(s3, photos, packed, tmp_path):
    photos[1].to_csv(tmp_path / "samples.csv", index=False)
    command = [sys.executable, "preprocess/make_shards.py", "--samples", tmp_path / "samples.csv", "--images",
               photos[0], "--out", "s3://bucket/killed", "--shard-size", "20", "--workers", "1"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL)
    output = RemoteOutput("s3://bucket/killed")
    while not output.kept():
        assert process.poll() is None
    process.kill()
    process.wait()
    assert "dataset.json" not in output.names()
    assert pack(photos[1], [photos[0]], "s3://bucket/killed", OPTIONS, Engine())
    assert digests(s3, "bucket/killed", tmp_path) == packed


def test_an_output_of_an_unknown_protocol_is_one_sentence():
    with pytest.raises(UserError, match=r"^nope://x has a protocol that fsspec does not know \("):
        open_output("nope://x")


def test_an_addition_to_a_remote_dataset(s3, photos, tmp_path):
    url = "s3://bucket/added"
    first = photos[1][photos[1].index % 2 == 0]
    pack(first, [photos[0]], url, OPTIONS, Engine())
    assert pack(photos[1], [photos[0]], url, OPTIONS, Engine(), append=True)
    local = tmp_path / "local"
    pack(first, [photos[0]], local, OPTIONS, Engine())
    pack(photos[1], [photos[0]], local, OPTIONS, Engine(), append=True)
    assert digests(s3, "bucket/added", tmp_path) == {path.name: sha256(path) for path in local.iterdir()}
