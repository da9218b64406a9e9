"""WriteBehind passes all bytes on and starts the disk early, on each byte once."""
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.packing import shard_task
from preprocess.packing.shard_task import WriteBehind


@settings(max_examples=100)
@given(sizes=st.lists(st.integers(0, 40), max_size=30))
def test_stretches_follow_each_other_and_lag_less_than_one(sizes, tmp_path_factory):
    path, advised = tmp_path_factory.mktemp("behind") / "f", []
    parts = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    with open(path, "wb") as f, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_task, "STRETCH", 16)
        patch.setattr(os, "posix_fadvise", lambda fileno, *advice: advised.append(advice))
        stream = WriteBehind(f, f.fileno())
        for part in parts:
            assert stream.write(part) == len(part)
    assert path.read_bytes() == b"".join(parts)
    ends = [0]
    for start, size, advice in advised:
        assert start == ends[-1] and size >= 16 and advice == os.POSIX_FADV_DONTNEED
        ends.append(start + size)
    assert 0 <= sum(sizes) - ends[-1] < 16
