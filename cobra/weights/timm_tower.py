"""A tower's weights: from timm's hub, or a file in timm's or in transformers' layout."""

import re
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before timm)

import torch  # isort: skip
from huggingface_hub import hf_hub_download
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from cobra.weights.check_fit import check_fit
from cobra.weights.tensors import open_tensors

_FILES = ("model.safetensors", "pytorch_model.bin")


def download_tower(name: str, config: Any) -> Path:
    """The weight file of a timm model, downloaded or from the hub's cache.

    Raises:
        FileNotFoundError: where it is neither, saying which file to place where.
    """
    if not config.hf_hub_id:
        raise ValueError(f"timm has no weights for {name!r}: set pretrained to false, or weights to a file")
    file = config.hf_hub_filename or _FILES[0]
    try:
        return Path(hf_hub_download(config.hf_hub_id, file))
    except OSError as error:  # no connection, no such repository, a broken proxy
        raise FileNotFoundError(
            f"the weights of {name!r} are not here and cannot be downloaded ({type(error).__name__}). Fetch "
            f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{file} on another machine, put the file "
            f"anywhere on this one, and set the encoder's `weights` to its path"
        ) from None


def load_tower(tower: VisionTransformer, path: Path, unused: tuple[str, ...]) -> None:
    """Fill a timm ViT from a file, the position embedding resampled to its grid (bicubic, antialiased, fp32).

    Args:
        tower: on a real device.
        path: the file, or its folder.
        unused: prefixes of what the file may hold beyond the tower.

    Raises:
        ValueError: where the file cannot be read or is another tower's, naming what does not fit.
    """
    held = read_state(path)
    try:
        state = {key: value.float() for key, value in to_timm_layout(held).items()}
        state = checkpoint_filter_fn(state, tower)
    except KeyError as error:
        raise ValueError(f"{path} does not fit {_name(tower)}: missing {error}") from error
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} does not fit {_name(tower)}: {error}") from error
    expected = {key: value.shape for key, value in tower.state_dict().items()}
    found = {
        key: value.shape for key, value in state.items() if key in expected or not key.startswith(unused)
    }
    check_fit(expected, found, f"{path} does not fit {_name(tower)}")
    tower.load_state_dict({key: state[key] for key in expected})


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file or of the one in a folder; errors as for `open_tensors`."""
    if path.is_dir():
        held = [path / name for name in _FILES if (path / name).is_file()]
        path = held[0] if held else path / _FILES[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: set `weights` to the tower's weight file")
    return {name: stored.read() for name, stored in open_tensors(path).items()}


# transformers' names to timm's, in this order; DINOv2's attention has older and newer names
_RENAMED = (
    (r"^embeddings\.patch_embeddings?(\.projection)?\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings?(\.weight)?$", "pos_embed"),
    (r"^embeddings\.(class_embedding|cls_token)$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^(post_layernorm|layernorm)\.", "norm."),
    (r"^encoder\.layers?\.", "blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.(self_attn\.out_proj|attention\.output\.dense|attention\.o_proj)\.", ".attn.proj."),
    (r"\.(self_attn|attention(?:\.attention)?)\.(q|k|v)(?:uery|ey|alue|_proj)\.", r".attn.\2."),
)
# Pooling heads, and numbers of positions.
LEFT_OUT = ("head.", "embeddings.")


def to_timm_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A vision tower's weights by timm's names; those of transformers' SigLIP, CLIP and DINOv2 are renamed.

    A model of more than the tower (SigLIP, CLIP, LLaVA) gives its `vision_model`. Pooling heads are left out.
    """
    inner = re.compile(r"^(.*\bvision_model|dinov2(_with_registers)?)\.")
    if any(inner.match(key) for key in state):
        state = {inner.sub("", key): value for key, value in state.items() if inner.match(key)}
    if not any(key.startswith("embeddings.patch_embedding") for key in state):
        return state
    renamed = {timm_name(key): value for key, value in state.items()}
    renamed = {key: value for key, value in renamed.items() if not key.startswith(LEFT_OUT)}
    return _fold_class_position(_merge_qkv(renamed))


def timm_name(key: str) -> str:
    """timm's name of a weight of transformers' tower, queries, keys and values still apart."""
    for pattern, name in _RENAMED:
        key = re.sub(pattern, name, key)
    return key


def _merge_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Three attention inputs as one."""
    merged = {}
    for key, value in state.items():
        start, found, kind = key.rpartition(".attn.q.")
        if found:
            merged[f"{start}.attn.qkv.{kind}"] = torch.cat(
                [value, *(state[f"{start}.attn.{part}.{kind}"] for part in "kv")]
            )
        elif not re.search(r"\.attn\.[kv]\.", key):
            merged[key] = value
    return merged


def _fold_class_position(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Shapes as in timm, where a tower with registers adds no position to its class token."""
    state["pos_embed"] = state["pos_embed"].reshape(1, -1, state["pos_embed"].shape[-1])  # (1, N, D)
    if "cls_token" in state:
        state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    if "reg_token" in state:
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return state


def _name(tower: VisionTransformer) -> str:
    return f"{tower.pretrained_cfg['architecture']}.{tower.pretrained_cfg['tag']}"
