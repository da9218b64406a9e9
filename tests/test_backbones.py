"""timm's models: one of each module embeds; how tokens are pooled; other sizes; files of other projects."""
import pytest
import timm
import torch

from arcshard.console import UserError
from model import ModelConfig, build_embedder
from model.backbone import form_of, own_size, resize
from model.pooling import Average
from tests.tiny_models import CLIP, SIDE

SMALLEST = """
    beit_base_patch16_224 halonet_h1 test_byobnet cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32
    test_convnext cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_focus_s cspnext_tiny davit_tiny deepseek_vit_412m
    deit_tiny_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
    test_efficientnet efficientvim_m1 efficientvit_b0 efficientvit_m0 vit_tiny_patch16_dinov3_qkvb fasternet_t0
    fastvit_t8 focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050 hardcorenas_b hgnetv2_b0 hiera_tiny_224
    sam2_hiera_tiny hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4
    lcnetv2_small levit_128s lowformer_b0 test_mambaout test_coatnet poolformerv2_s12 gmlp_ti16_224 lcnet_035
    mobilenetv5_base mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_parfac_gap nasnetalarge nest_tiny
    nextvit_small test_nfnet pit_ti_224 pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050
    repvit_m1 res2next50 resnest14d test_resnet resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s
    shvit_s1 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256
    swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny
    test_vit vit_tiny_r_s16_p8_224 test_vit_relpos samvit_base_patch16_224 vitamin_small_224 volo_d1_224
    ese_vovnet19b_slim_dw legacy_xception xception41p xcit_nano_12_p8_224
""".split()
"""The smallest model of each module; of modules that timm got since, the first is taken."""
OWN_POOLING_ALONE = {"coat": "it gives tokens of three scales", "crossvit": "it gives tokens of two scales",
                     "efficientvim": "it gives a state for each stage", "pit": "it gives the class token alone"}
ONE_SIZE = {"efficientformer": "its attention biases are for 7 × 7 positions"}
MODULES = [module for module in timm.list_modules() if module != "tiny_models"]


class OfSeveral(Average):
    """In GeM's place, whose autocast does not know the meta device."""

    def forward(self, x):
        assert x.shape[2:].numel() > 1, "with one position there is nothing to pool"
        return super().forward(x)


def embedding_on_meta(config, size):
    """Its shape for two photos; computed without weights."""
    with torch.device("meta"):
        embedder = build_embedder(config, size=size).eval()
    if config.pooling == "gem":
        embedder.pooling = OfSeveral()
    return embedder.neck(embedder.pooled(torch.empty(2, 3, size, size, device="meta"))).shape


@pytest.mark.heavy
@pytest.mark.parametrize("module", MODULES)
def test_a_model_of_each_module_embeds_two_photos_or_is_refused_in_a_sentence(module):
    models = timm.list_models(module=module)
    name = next((name for name in SMALLEST if name in models), models[0])
    gem, own = (ModelConfig(name, "none", pooling, dim=8) for pooling in ("gem", "auto"))
    size = own_size(name)
    assert embedding_on_meta(own, size) == (2, 8)
    if module in OWN_POOLING_ALONE:
        with pytest.raises(UserError, match="has no features for model.pooling gem: give "):
            embedding_on_meta(gem, size)
    else:
        assert embedding_on_meta(gem, size) == (2, 8)
    if module in ONE_SIZE:
        with pytest.raises(UserError, match=f"cannot take images of {2 * size} × {2 * size} pixels .*: give {size}"):
            embedding_on_meta(own, 2 * size)
    else:
        assert embedding_on_meta(own, 2 * size) == (2, 8)


# Pooling.


def made(name, pooling, size=None, **more):
    torch.manual_seed(0)
    return build_embedder(ModelConfig(name, "none", pooling, **{"neck": "none", **more}), size=size).eval()


def photos(count=2, side=SIDE):
    return torch.randint(256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(side))


@pytest.mark.parametrize("name, pooling", [
    ("tiny_clip", "cls"), ("tiny_beit", "avg"), ("tiny_dinov3", "avg"), ("tiny_swin", "avg"), ("test_resnet", "avg")])
@torch.inference_mode()
def test_the_pooling_that_a_model_was_trained_with_gives_its_own_features(name, pooling):
    """The class token of BEiT is normalized alone, its average after the pooling."""
    own, ours = made(name, "auto"), made(name, pooling)
    for parameter in own.backbone.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # norms begin as the identity
    ours.load_state_dict(own.state_dict())
    torch.testing.assert_close(ours(photos()), own(photos()), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_patch_tokens_are_pooled_without_class_and_registers():
    x = torch.randn(2, 3, SIDE, SIDE)
    gem, both = made("tiny_dinov3", "gem-fixed"), made("tiny_dinov3", "cls+avg")
    tokens = gem.backbone.forward_features(x)
    assert tokens.shape == (2, 1 + 4 + 16, 32)
    torch.testing.assert_close(gem.pooled(x), tokens[:, 5:].clamp_min(1e-6).pow(3).mean(1).pow(1 / 3))
    torch.testing.assert_close(both.pooled(x), torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1))
    siglip = made("tiny_siglip", "avg")
    torch.testing.assert_close(siglip.pooled(x), siglip.backbone.forward_features(x).mean(1))
    assert siglip.backbone.attn_pool is None and made("tiny_siglip", "auto").backbone.attn_pool is not None


@torch.inference_mode()
def test_a_map_with_channels_last_is_pooled_over_its_positions():
    swin, x = made("tiny_swin", "gem"), torch.randn(2, 3, SIDE, SIDE)
    features = swin.backbone(x)
    assert features.shape == (2, 8, 8, 32) and form_of("tiny_swin").layout == "NHWC"
    torch.testing.assert_close(swin.pooled(x), features.clamp_min(1e-6).pow(3).mean((1, 2)).pow(1 / 3))


@pytest.mark.parametrize("name, pooling, given", [
    ("test_resnet", "cls", "gem or gem-fixed or avg or auto"), ("tiny_siglip", "cls+avg", "gem or gem-fixed or avg or"),
    ("tiny_swin", "cls", "gem or gem-fixed or avg or auto")])
def test_a_pooling_that_a_model_cannot_do_is_refused(name, pooling, given):
    with pytest.raises(UserError, match=f"{name} has no features for model.pooling .*: give {given}"):
        made(name, pooling)


# Sizes.


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_swin", "tiny_dinov3"])
@torch.inference_mode()
def test_most_take_another_size_with_the_same_parameters(name):
    ours, resized = made(name, "auto"), made(name, "auto")
    assert ours.state_dict().keys() == made(name, "auto", size=2 * SIDE).state_dict().keys()
    if name == "tiny_clip":
        resized.backbone.set_input_size((48, 48))
    torch.testing.assert_close(ours(photos(side=48)), resized(photos(side=48)))


@torch.inference_mode()
def test_a_model_made_for_a_size_is_interpolated_to_another():
    embedder, larger = made("tiny_beit", "avg"), made("tiny_beit", "avg", size=48)
    with pytest.raises(AssertionError):
        embedder(photos(side=48))
    resize(embedder.backbone, "tiny_beit", SIDE, 48)
    larger.load_state_dict(embedder.state_dict())
    assert torch.equal(embedder(photos(side=48)), larger(photos(side=48)))
    with pytest.raises(UserError, match="gmlp_ti16_224 takes one image size, here 224, and not 256"):
        resize(torch.nn.Identity(), "gmlp_ti16_224", 224, 256)


def test_stages_and_evaluation_may_have_other_sizes(call, dataset_path, tmp_path):
    run = tmp_path / "run"
    done = call("train.py", "--data", dataset_path, "--out", run, "--model.backbone", "tiny_beit", "--model.weights",
                "none", "--model.pooling", "auto", "--model.dim", 8, "--train.epochs", 1, "--train.global_batch", 20,
                "--train.device", "cpu", "--stages", "{low: {size: 32}, high: {size: 48}}")
    assert done.returncode == 0, done.stderr
    done = call("evaluate.py", "--run", run, "--data", dataset_path, "--size", 64)
    assert done.returncode == 0, done.stderr


# Weights of other projects, in their own files' names.


def clip_names(state):
    """As OpenAI's and OpenCLIP's; with a part of the text encoder."""
    swaps = [("patch_embed.proj", "conv1"), ("blocks.", "transformer.resblocks."), ("norm_pre", "ln_pre"),
             ("norm1", "ln_1"), ("norm2", "ln_2"), ("norm.", "ln_post."), ("qkv.", "in_proj_"),
             ("attn.proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")]
    renamed = {"visual.proj": torch.zeros(32, 16), "token_embedding.weight": torch.zeros(4, 4)}
    for name, tensor in state.items():
        if name == "cls_token":
            renamed["visual.class_embedding"] = tensor[0, 0]
        elif name == "pos_embed":
            renamed["visual.positional_embedding"] = tensor[0]
        else:
            for ours, theirs in swaps:
                name = name.replace(ours, theirs)
            renamed[f"visual.{name}"] = tensor
    return renamed


def siglip_names(state):
    """As OpenCLIP's, whose image encoder is timm's."""
    return {f"visual.trunk.{name}": tensor for name, tensor in state.items()} | {"logit_scale": torch.zeros(())}


def dinov3_names(state):
    """As Meta's; with what only its pretraining needs."""
    swaps = [("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens")]
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in swaps:
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed | {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.zeros(4),
                      "blocks.0.attn.qkv.bias": torch.zeros(96), "blocks.0.attn.qkv.bias_mask": torch.zeros(96)}


@pytest.mark.parametrize("name, names, pooling", [
    ("tiny_clip", clip_names, "cls"), ("tiny_siglip", siglip_names, "auto"), ("tiny_siglip", siglip_names, "avg"),
    ("tiny_dinov3", dinov3_names, "cls")])
def test_a_file_of_another_project_loads_by_timms_name(name, names, pooling, tmp_path):
    source = made(name, "auto")
    torch.save(names(source.backbone.state_dict()), tmp_path / "weights.pth")
    torch.manual_seed(1)
    loaded = build_embedder(ModelConfig(name, str(tmp_path / "weights.pth"), pooling), size=2 * SIDE)
    expected = source.backbone.state_dict()
    for key, value in loaded.backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert loaded.mean.tolist() == pytest.approx(CLIP["mean"] if name == "tiny_clip" else [0.5] * 3)


# Speed.


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_dinov3", "tiny_beit", "tiny_swin"])
def test_a_compiled_transformer_is_one_graph(name):
    torch._dynamo.reset()
    embedder = made(name, "auto").train()  # without drop_path, which Swin has by default, nothing is random
    compiled = torch.compile(embedder, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(photos()), embedder(photos()))
