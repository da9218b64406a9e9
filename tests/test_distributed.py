"""What the ranks of a run say of each other; real lost ranks are in test_train.py and test_elastic.py."""
import pytest
import torch.distributed as dist

from arcshard.distributed import RankLost, lost_rank_is_a_sentence


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
