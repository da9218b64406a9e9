"""Tiny transformers under names that timm knows once this module is imported; it has none of these kinds so small."""
from functools import partial
from typing import Any

from timm.layers import LayerNorm
from timm.models import generate_default_cfgs, register_model
from timm.models.beit import _create_beit
from timm.models.eva import _create_eva
from timm.models.swin_transformer import _create_swin_transformer
from timm.models.vision_transformer import _create_vision_transformer

SIDE = 32
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def _cfg(**other: Any) -> dict[str, Any]:
    return {"num_classes": 1000, "input_size": (3, SIDE, SIDE), "fixed_input_size": True, "mean": (0.5,) * 3,
            "std": (0.5,) * 3, "first_conv": "patch_embed.proj", "classifier": "head", **other}


default_cfgs = generate_default_cfgs({
    "tiny_clip": _cfg(num_classes=16, **CLIP), "tiny_siglip": _cfg(num_classes=0), "tiny_beit": _cfg(),
    "tiny_dinov3": _cfg(num_classes=0), "tiny_swin": _cfg(classifier="head.fc")})
VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


@register_model
def tiny_clip(pretrained: bool = False, **kwargs: Any) -> Any:
    """As CLIP's: pooled by the class token."""
    return _create_vision_transformer("tiny_clip", pretrained, **VIT | {"pre_norm": True} | kwargs)


@register_model
def tiny_siglip(pretrained: bool = False, **kwargs: Any) -> Any:
    """As SigLIP's: no class token, pooled by attention."""
    return _create_vision_transformer("tiny_siglip", pretrained, **VIT | {"class_token": False, "global_pool": "map"}
                                      | kwargs)


@register_model
def tiny_beit(pretrained: bool = False, **kwargs: Any) -> Any:
    """As BEiT's: made for a size, averaged and then normalized."""
    return _create_beit("tiny_beit", pretrained, **VIT | {
        "use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1} | kwargs)


@register_model
def tiny_dinov3(pretrained: bool = False, **kwargs: Any) -> Any:
    """As DINOv3's: four registers, rotary position embeddings."""
    return _create_eva("tiny_dinov3", pretrained, **VIT | {
        "dynamic_img_size": True, "qkv_bias": False, "init_values": 1e-5, "rope_type": "dinov3",
        "rope_temperature": 100, "rope_rotate_half": True, "use_rot_pos_emb": True, "use_abs_pos_emb": False,
        "num_reg_tokens": 4, "use_fc_norm": False, "norm_layer": partial(LayerNorm, eps=1e-5)} | kwargs)


@register_model
def tiny_swin(pretrained: bool = False, **kwargs: Any) -> Any:
    """As Swin's: a map in NHWC, windows of 4 × 4."""
    return _create_swin_transformer("tiny_swin", pretrained, **{
        "img_size": SIDE, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2)}
        | kwargs)
