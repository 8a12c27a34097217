"""Names and shapes in the published checkpoints, written from their files' listings, at any dimensions.

Sources: Cobra's `latest-checkpoint.pt` (han1997/cobra, 11,779,648,721 bytes), ML-Mamba's (12.1 GB) and the
repositories of state-spaces/mamba.
"""

Shapes = dict[str, tuple[int, ...]]


def mamba(prefix: str, vocab: int, d: int, layers: int, state: int = 16, conv: int = 4) -> Shapes:
    """A Mamba-1 language model with its head stored twice."""
    inner, rank = 2 * d, -(-d // 16)
    keys: Shapes = {f"{prefix}backbone.embedding.weight": (vocab, d), f"{prefix}backbone.norm_f.weight": (d,)}
    keys[f"{prefix}lm_head.weight"] = (vocab, d)
    for i in range(layers):
        layer = f"{prefix}backbone.layers.{i}"
        keys |= {
            f"{layer}.norm.weight": (d,),
            f"{layer}.mixer.in_proj.weight": (2 * inner, d),
            f"{layer}.mixer.conv1d.weight": (inner, 1, conv),
            f"{layer}.mixer.conv1d.bias": (inner,),
            f"{layer}.mixer.x_proj.weight": (rank + 2 * state, inner),
            f"{layer}.mixer.dt_proj.weight": (inner, rank),
            f"{layer}.mixer.dt_proj.bias": (inner,),
            f"{layer}.mixer.A_log": (inner, state),
            f"{layer}.mixer.D": (inner,),
            f"{layer}.mixer.out_proj.weight": (d, inner),
        }
    return keys


def mamba2(
    prefix: str, vocab: int, d: int, layers: int, state: int = 128, head: int = 64, conv: int = 4
) -> Shapes:
    """A Mamba-2 language model with its head stored twice."""
    keys: Shapes = {f"{prefix}backbone.embedding.weight": (vocab, d), f"{prefix}backbone.norm_f.weight": (d,)}
    keys[f"{prefix}lm_head.weight"] = (vocab, d)
    for i in range(layers):
        layer = f"{prefix}backbone.layers.{i}"
        keys[f"{layer}.norm.weight"] = (d,)
        keys |= {f"{layer}.mixer.{name}": shape for name, shape in mamba2_mixer(d, state, head, conv).items()}
    return keys


def mamba2_mixer(d: int, state: int, head: int, conv: int) -> Shapes:
    """The weights of one Mamba-2 mixer."""
    inner, heads = 2 * d, 2 * d // head
    channels = inner + 2 * state
    return {
        "in_proj.weight": (inner + channels + heads, d),
        "conv1d.weight": (channels, 1, conv),
        "conv1d.bias": (channels,),
        "dt_bias": (heads,),
        "A_log": (heads,),
        "D": (heads,),
        "norm.weight": (inner,),
        "out_proj.weight": (d, inner),
    }


def fused_mlp(prefix: str, vision: int, d: int) -> Shapes:
    """Cobra's "fused-gelu-mlp"."""
    return {
        f"{prefix}projector.0.weight": (4 * vision, vision),
        f"{prefix}projector.0.bias": (4 * vision,),
        f"{prefix}projector.2.weight": (d, 4 * vision),
        f"{prefix}projector.2.bias": (d,),
        f"{prefix}projector.4.weight": (d, d),
        f"{prefix}projector.4.bias": (d,),
    }


def fused_ldpnet(prefix: str, vision: int, d: int) -> Shapes:
    """Cobra's "fused-ldpnet"."""
    mlp = {name: s for name, s in fused_mlp(prefix, vision, d).items() if ".4." not in name}
    return {
        **mlp,
        f"{prefix}projector.4.peg.0.weight": (d, 1, 3, 3),
        f"{prefix}projector.4.peg.0.bias": (d,),
    }


def cobra(vision: int, vocab: int, d: int, layers: int) -> Shapes:
    """Cobra-3.5B is cobra(2176, 50280, 2560, 64)."""
    lm = mamba("model/llm_backbone/llm.", vocab, d, layers)
    return fused_mlp("model/projector/", vision, d) | lm


def ml_mamba(vision: int, vocab: int, d: int, layers: int, state: int = 128, head: int = 64) -> Shapes:
    """ML-Mamba is ml_mamba(2176, 50288, 2560, 64)."""
    keys = mamba2("model/llm_backbone/", vocab, d, layers, state, head) | fused_mlp("model/projector/", d, d)
    keys |= {"model/mlp/0.weight": (d, vision), "model/mlp/0.bias": (d,)}
    scan = "model/bidirectional_mamba"
    keys |= {f"{scan}/norm_f.weight": (d,), f"{scan}/norm_f.bias": (d,)}
    for i in range(2):
        layer = f"{scan}/layers.{i}"
        keys |= {f"{layer}.norm.weight": (d,), f"{layer}.norm.bias": (d,)}
        for name, shape in mamba2_mixer(d, state, head, 4).items():
            keys[f"{layer}.mixer.{name}"] = shape
            if name in ("conv1d.weight", "conv1d.bias"):
                keys[f"{layer}.mixer.{name.replace('conv1d', 'conv1d_b')}"] = shape
            if name in ("dt_bias", "A_log", "D"):
                keys[f"{layer}.mixer.{name}_b"] = shape
        for name in ("w1", "w2", "w3"):
            keys |= {f"{layer}.mlp.{name}.weight": (d, d), f"{layer}.mlp.{name}.bias": (d,)}
    return keys
