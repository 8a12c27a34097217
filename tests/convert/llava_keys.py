"""Names and shapes in the checkpoints of LLaVA's family, at any dimensions.

Sources: the code of LLaVA (c121f04), MobileVLM (688fdec), Imp (363a9bb), mlc-imp (f293c06), TinyLLaVA Factory
(53f12c7) and MLC-VLM-template (1ab62c1).
"""

from tests.convert.published_keys import Shapes

TOWER = "model.vision_tower.vision_tower.vision_model."


def linear(name: str, rows: int, columns: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def norm(name: str, d: int, bias: bool = True) -> Shapes:
    keys: Shapes = {f"{name}.weight": (d,)}
    return keys | ({f"{name}.bias": (d,)} if bias else {})


def blocks(prefix: str, d: int, inner: int, layers: int) -> Shapes:
    keys: Shapes = {}
    for i in range(layers):
        at = f"{prefix}encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            keys |= linear(f"{at}.self_attn.{name}", d, d)
        keys |= norm(f"{at}.layer_norm1", d) | norm(f"{at}.layer_norm2", d)
        keys |= linear(f"{at}.mlp.fc1", inner, d) | linear(f"{at}.mlp.fc2", d, inner)
    return keys


def clip(prefix: str = TOWER, d: int = 1024, patch: int = 14, side: int = 24, layers: int = 24) -> Shapes:
    """CLIP ViT-L/14 at 336 px, whole."""
    return {
        f"{prefix}embeddings.class_embedding": (d,),
        f"{prefix}embeddings.patch_embedding.weight": (d, 3, patch, patch),
        f"{prefix}embeddings.position_embedding.weight": (side**2 + 1, d),
        **norm(f"{prefix}pre_layrnorm", d),
        **blocks(prefix, d, 4 * d, layers),
        **norm(f"{prefix}post_layernorm", d),
    }


def siglip(prefix: str = TOWER, side: int = 27, layers: int = 26) -> Shapes:
    """SigLIP so400m as TinyLLaVA and Imp keep it: without last layer, last norm and pooling head."""
    d = 1152
    return {
        f"{prefix}embeddings.patch_embedding.weight": (d, 3, 14, 14),
        f"{prefix}embeddings.patch_embedding.bias": (d,),
        f"{prefix}embeddings.position_embedding.weight": (side**2, d),
        **blocks(prefix, d, 4304, layers),
    }


def mlp(
    vision: int, d: int, prefix: str = "model.mm_projector.", first: str = "0", last: str = "2"
) -> Shapes:
    return linear(f"{prefix}{first}", d, vision) | linear(f"{prefix}{last}", d, d)


def ldp(vision: int, d: int) -> Shapes:
    """MobileVLM's `ldpnet`."""
    prefix, squeezed = "model.mm_projector.model.", d // 4
    keys = mlp(vision, d, f"{prefix}mlp.", "1", "3")
    for k in (1, 2):
        at = f"{prefix}mb_block.{k}.block"
        keys |= {f"{at}.0.0.weight": (d, 1, 3, 3), f"{at}.2.0.weight": (d, d, 1, 1)}
        keys |= norm(f"{at}.0.1", d) | norm(f"{at}.2.1", d)
        keys |= {f"{at}.1.fc1.weight": (squeezed, d, 1, 1), f"{at}.1.fc1.bias": (squeezed,)}
        keys |= {f"{at}.1.fc2.weight": (d, squeezed, 1, 1), f"{at}.1.fc2.bias": (d,)}
    return keys


def ldpv2(vision: int, d: int) -> Shapes:
    """MobileVLM V2's `ldpnetv2`."""
    prefix = "model.mm_projector."
    peg: Shapes = {f"{prefix}peg.peg.0.weight": (d, 1, 3, 3), f"{prefix}peg.peg.0.bias": (d,)}
    return mlp(vision, d, f"{prefix}mlp.mlp.") | peg


def llama(
    vocab: int, d: int, inner: int, layers: int, kv: int | None = None, bias: bool = False,
    norm_bias: bool = False, at: str = "model.", head: str = "lm_head",
) -> Shapes:  # fmt: skip
    """LLaMA; with biases of queries, keys and values Qwen1.5, with those of norms as well StableLM-2."""
    keys: Shapes = {f"{at}embed_tokens.weight": (vocab, d)} | norm(f"{at}norm", d, norm_bias)
    for i in range(layers):
        layer = f"{at}layers.{i}"
        keys |= linear(f"{layer}.self_attn.q_proj", d, d, bias)
        for name in ("k_proj", "v_proj"):
            keys |= linear(f"{layer}.self_attn.{name}", kv or d, d, bias)
        keys |= linear(f"{layer}.self_attn.o_proj", d, d, bias=False)
        for name in ("gate_proj", "up_proj"):
            keys |= linear(f"{layer}.mlp.{name}", inner, d, bias=False)
        keys |= linear(f"{layer}.mlp.down_proj", d, inner, bias=False)
        for name in ("input_layernorm", "post_attention_layernorm"):
            keys |= norm(f"{layer}.{name}", d, norm_bias)
    return keys | linear(head, vocab, d, bias=False)


def phi(vocab: int, d: int, inner: int, layers: int) -> Shapes:
    """Phi-2 by today's names."""
    keys: Shapes = {"model.embed_tokens.weight": (vocab, d)} | norm("model.final_layernorm", d)
    for i in range(layers):
        layer = f"model.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "dense"):
            keys |= linear(f"{layer}.self_attn.{name}", d, d)
        keys |= norm(f"{layer}.input_layernorm", d)
        keys |= linear(f"{layer}.mlp.fc1", inner, d) | linear(f"{layer}.mlp.fc2", d, inner)
    return keys | linear("lm_head", vocab, d)


def first_phi(vocab: int, d: int, inner: int, layers: int) -> Shapes:
    """Phi-2 by its first names."""
    keys: Shapes = {"transformer.embd.wte.weight": (vocab, d)} | norm("lm_head.ln", d)
    for i in range(layers):
        layer = f"transformer.h.{i}"
        keys |= norm(f"{layer}.ln", d) | linear(f"{layer}.mixer.Wqkv", 3 * d, d)
        keys |= linear(f"{layer}.mixer.out_proj", d, d)
        keys |= linear(f"{layer}.mlp.fc1", inner, d) | linear(f"{layer}.mlp.fc2", d, inner)
    return keys | linear("lm_head.linear", vocab, d)


def phi3(vocab: int, d: int, inner: int, layers: int, at: str = "model.", head: str = "lm_head") -> Shapes:
    """Phi-3, whose matrices are joined."""
    keys: Shapes = {f"{at}embed_tokens.weight": (vocab, d)} | norm(f"{at}norm", d, bias=False)
    for i in range(layers):
        layer = f"{at}layers.{i}"
        keys |= linear(f"{layer}.self_attn.qkv_proj", 3 * d, d, bias=False)
        keys |= linear(f"{layer}.self_attn.o_proj", d, d, bias=False)
        keys |= linear(f"{layer}.mlp.gate_up_proj", 2 * inner, d, bias=False)
        keys |= linear(f"{layer}.mlp.down_proj", d, inner, bias=False)
        for name in ("input_layernorm", "post_attention_layernorm"):
            keys |= norm(f"{layer}.{name}", d, bias=False)
    return keys | linear(head, vocab, d, bias=False)


def renamed(keys: Shapes, names: dict[str, str]) -> Shapes:
    """With other prefixes."""
    out: Shapes = {}
    for name, shape in keys.items():
        old = next((old for old in names if name.startswith(old)), "")
        out[names.get(old, "") + name.removeprefix(old)] = shape
    return out
