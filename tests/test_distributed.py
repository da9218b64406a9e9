"""What the ranks of a run say of each other; real lost ranks are in test_train.py and test_elastic.py."""
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from arcshard.distributed import RankLost, lost_rank_is_a_sentence, set_timeout


@pytest.mark.parametrize("error, reason", [
    (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5"), "its connection ended"),
    (RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 3000ms for recv operation to complete"),
     "it did not answer in time"),
    (RuntimeError("Application timeout caused pair closure"), "it did not answer in time"),
    (dist.DistBackendError("Operation timed out!"), "it did not answer in time"),
])
def test_what_the_connection_says_is_one_sentence(error, reason, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    with pytest.raises(RankLost, match=rf"rank 1 lost another \({reason}\)"), lost_rank_is_a_sentence(1):
        raise error


@pytest.mark.parametrize("together", [True, False])
def test_other_errors_stay_what_they_are(together, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: together)
    text = "mat1 and mat2 shapes cannot be multiplied" if together else "gloo"
    with pytest.raises(RuntimeError, match=text), lost_rank_is_a_sentence(1):
        raise RuntimeError(text)


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.filterwarnings("ignore:.*_set_pg_timeout:FutureWarning")
def test_the_timeout_becomes_that_of_the_connection_with_and_without_torchs_public_name(public, monkeypatch):
    if not public:
        monkeypatch.delattr(dist, "set_timeout", raising=False)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        set_timeout(7.5)
        backend = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
        assert backend.options._timeout == timedelta(seconds=7.5)
    finally:
        dist.destroy_process_group()


def test_there_is_no_timeout_to_set_without_other_ranks():
    set_timeout(7.5)
