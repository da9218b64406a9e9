import numpy as np
import pytest
import timm
import torch
import torchvision.transforms.v2.functional as tv
from timm.layers import DropPath

from arcshard.console import UserError
from model import HeadConfig, ModelConfig, build_embedder
from model.augment import color_jitter, prepare
from model.necks import NECKS, make_neck
from model.pooling import Average, GeM


def test_gem_is_the_generalized_mean_of_its_paper():
    x = torch.rand(3, 5, 4, 6)
    expected = (x.double().numpy() ** 2.5).mean((2, 3)) ** (1 / 2.5)
    np.testing.assert_allclose(GeM(p=2.5)(x).detach(), expected, rtol=1e-5)


def test_gem_with_exponent_one_is_the_average_and_a_large_one_the_maximum():
    x = torch.rand(2, 3, 5, 5) + 0.5
    torch.testing.assert_close(GeM(p=1.0)(x), Average()(x))
    torch.testing.assert_close(GeM(p=100.0)(x), x.amax((2, 3)), rtol=0.05, atol=0)


def test_gem_has_finite_gradients_for_negative_and_zero_features():
    gem = GeM()
    x = torch.tensor([[[[-1.0, 0.0], [2.0, 0.0]]]], requires_grad=True)
    gem(x).sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(gem.p.grad)


@pytest.mark.parametrize("p", [3.0, 7.4, 7.6, 20.0])
def test_gem_has_finite_gradients_of_a_large_exponent_where_a_channel_is_all_zero(p):
    """1e-6 to the 7.6th is 0 in float32. Where the mean is above 0, the gradient is that of the formula in float64."""
    gem, x = GeM(p), torch.stack([torch.zeros(2, 3, 3), torch.rand(2, 3, 3)], 1).requires_grad_()
    gem(x)[:, 1].sum().backward(retain_graph=True)
    wide, exact = x.detach().double(), torch.tensor(p, dtype=torch.float64, requires_grad=True)
    wide[:, 1].pow(exact).mean((1, 2)).pow(1 / exact).sum().backward()
    assert gem.p.grad.item() == pytest.approx(exact.grad.item(), rel=1e-3)
    gem(x).sum().backward()
    assert torch.isfinite(gem.p.grad) and torch.isfinite(x.grad).all()
    assert gem(torch.zeros(1, 1, 2, 2)).item() < 5e-2


def test_a_fixed_gem_does_not_learn_its_exponent():
    assert not GeM(learned=False).p.requires_grad
    with pytest.raises(ValueError, match="GeM's exponent p is 0: give a positive number"):
        GeM(p=0)


@pytest.mark.parametrize("kind", NECKS)
def test_necks_give_the_promised_size(kind):
    assert make_neck(kind, 20, 8)(torch.randn(4, 20)).shape == (4, 20 if kind == "none" else 8)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_neck_is_a_linear_layer_and_its_bias_is_left_out_on_request(bias):
    neck, x = make_neck("linear", 20, 8, bias), torch.randn(4, 20)
    assert [name for name, _ in neck.named_parameters()] == (["weight", "bias"] if bias else ["weight"])
    expected = x @ neck.weight.T + (neck.bias if bias else 0)
    torch.testing.assert_close(neck(x), expected)
    assert (small(neck="bn", neck_bias=bias).neck[0].bias is None) is not bias


def test_an_unknown_neck_is_named():
    with pytest.raises(ValueError, match="there is no neck 'x': give one of bn, bn-prelu, swish, ln, linear, none"):
        make_neck("x", 2, 2)


def test_drop_path_rises_linearly_with_depth_and_rests_in_evaluation():
    """As EfficientNet's drop-connect: the rate of block i of n is i / n of the given one."""
    embedder = build_embedder(ModelConfig("test_efficientnet", "none"), drop_path=0.2)
    blocks = [block for stage in embedder.backbone.blocks for block in stage]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.2 * i / len(blocks) for i in range(len(blocks))])
    images = torch.randint(256, (4, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(embedder.eval()(images), embedder(images))
    with pytest.raises(UserError, match="train.drop_path is 0.1, which vgg11 has no use for: set it to 0"):
        build_embedder(ModelConfig("vgg11", "none"), drop_path=0.1)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_tiny"])
def test_drop_path_of_block_i_of_n_after_the_first_is_i_of_n(name):
    """In transformers once for attention and once for the MLP; the first block is never left out."""
    with torch.device("meta"):
        backbone = build_embedder(ModelConfig(name, "none", pooling="avg"), drop_path=0.2).backbone
    rates = sorted({layer.drop_prob for layer in backbone.modules() if isinstance(layer, DropPath)})
    assert rates == pytest.approx([0.2 * i / len(rates) for i in range(1, len(rates) + 1)])
    assert len(rates) == {"vit": 11, "swi": 11, "con": 17}[name[:3]]


def test_color_jitter_equals_torchvision_sample_by_sample():
    x = torch.rand(6, 3, 9, 9)
    factors = torch.rand(6, 3) + 0.5
    expected = [tv.adjust_saturation(tv.adjust_contrast(tv.adjust_brightness(image, b), c), s)
                for image, (b, c, s) in zip(x, factors.tolist())]
    torch.testing.assert_close(color_jitter(x, factors), torch.stack(expected), rtol=0, atol=3e-4)


def test_prepare_normalizes_once_and_keeps_rgb():
    """Double normalization and swapped channels are what kept D2-MetricLearning from learning."""
    images = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    images[..., 0] = 255
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.5, 0.2, 0.1])
    out = prepare(images, torch.ones(1, 3), mean, std)
    assert out.shape == (1, 3, 2, 2) and out.dtype == torch.float32
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([1.0, -2.0, -3.0]))
    assert out.is_contiguous(memory_format=torch.channels_last)


def small(**options):
    return build_embedder(ModelConfig(backbone="test_efficientnet", weights="none", dim=16, **options))


@pytest.mark.parametrize("pooling", ["gem", "gem-fixed", "avg"])
@pytest.mark.parametrize("neck", NECKS)
def test_every_combination_embeds_and_learns(pooling, neck):
    embedder = small(pooling=pooling, neck=neck)
    embeddings = embedder(torch.randint(256, (4, 64, 64, 3), dtype=torch.uint8), torch.ones(4, 3))
    assert embeddings.shape == (4, embedder.dim)
    embeddings.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in embedder.parameters() if p.requires_grad)


def test_the_packaged_weights_are_imagenet_features():
    """Loaded by position, they must act as the full classifier's trunk does."""
    from model.weights import _packaged_state, make_backbone
    name = "tf_efficientnet_lite0"
    full = timm.create_model(name).eval()
    full.load_state_dict(dict(zip(full.state_dict(), _packaged_state(name).values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(make_backbone(name, "package").eval()(x), full.forward_features(x))
    weight = full.classifier.weight.detach()
    assert weight.shape == (1000, 1280) and 0.01 < weight.std() < 0.2, "a trained classifier, not zeros"


def test_a_local_checkpoint_file_is_loaded(tmp_path):
    torch.manual_seed(0)
    saved = timm.create_model("test_efficientnet")
    torch.save(saved.state_dict(), tmp_path / "weights.pth")
    embedder = build_embedder(ModelConfig(backbone="test_efficientnet", weights=str(tmp_path / "weights.pth")))
    for name, value in embedder.backbone.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name


@pytest.mark.parametrize("config, sentence", [
    ({"backbone": "resnet5"}, "model.backbone is resnet5, which timm does not know: did you mean"),
    ({"backbone": "zzz"}, "see timm.list_models()"),
    ({"weights": "/no/file"}, "model.weights is /no/file, which is no file"),
    ({"backbone": "resnet18", "weights": "package"}, 'model.weights "package" exists for tf_efficientnet_lite0'),
])
def test_wrong_models_are_one_sentence(config, sentence):
    with pytest.raises(UserError) as error:
        build_embedder(ModelConfig(**config))
    assert sentence in str(error.value)


def test_head_config_checks_its_range():
    with pytest.raises(ValueError, match="head.margin_warmup is 2: give a share of the run"):
        HeadConfig(margin_warmup=2)
