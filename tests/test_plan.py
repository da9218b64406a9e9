"""The table that a run begins with: the network's cost by torchvision's own figures, and the time to come."""
import pytest
from torchvision.models import ResNet50_Weights

from model import ModelConfig
from training.plan import StagePlan, cost_of, seconds_to_come


def test_parameters_and_operations_are_those_of_torchvision():
    """Without its last layer, 2,048 × 1,000; its operations are multiply-adds."""
    theirs, cost = ResNet50_Weights.IMAGENET1K_V1.meta, cost_of(ModelConfig("resnet50", neck="none"), 224)
    assert cost.backbone + 2049 * 1000 == theirs["num_params"]
    assert cost.flops / 2 + 2048 * 1000 == pytest.approx(1e9 * theirs["_ops"], rel=1e-3)


def test_a_neck_costs_what_its_matrix_does():
    narrow, wide = (cost_of(ModelConfig("test_resnet", neck="linear", dim=dim, pooling="avg"), 64) for dim in (8, 24))
    added = (wide.neck - narrow.neck) // 16 - 1  # inputs of each further output, which has a bias too
    assert wide.flops - narrow.flops == 2 * added * 16 and (narrow.dim, wide.dim) == (8, 24)


def test_time_to_come_counts_what_is_left_and_larger_images():
    plan = {"low": StagePlan({}, 1000, 5), "high": StagePlan({}, 200, 20), "last": StagePlan({}, 100, 5)}
    assert seconds_to_come(plan, "low", 400, 10.0) == (60, 90)
    assert seconds_to_come(plan, "last", 100, 10.0) == (0, 0)
