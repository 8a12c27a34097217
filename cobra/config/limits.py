"""Bounds of what files and users ask for, each far above what any model or picture here needs."""

# Of a picture. Decoded it takes at most a gigabyte: 8 bytes a pixel.
MAX_PIXELS = 120_000_000
# What JPEG can hold, and more than any camera or screenshot has.
MAX_SIDE = 65_500

# Of what a chat template makes at once, in characters: a long chat has some 100,000.
MAX_TEMPLATE_TEXT = 5_000_000
# Of what it does in all, in characters that it makes and 200 a call: a chat of 100 turns takes a million.
MAX_TEMPLATE_WORK = 20_000_000

# Of the text of one record of a data set, in characters: pictures may be in it, in base64.
MAX_RECORD_TEXT = 200_000_000

# Of a language model: the deepest that are published have some 130 blocks.
MAX_LAYERS = 1000
# Parameters of a model that a published configuration describes, counted before they have memory.
MAX_TENSORS = 20_000
# Of a token id: the largest published vocabularies have 260,000 words.
MAX_TOKEN_ID = 10_000_000

# Of a seed: numpy, torch and Lightning take these.
MAX_SEED = 2**32 - 1
# Of records in a row that cannot be read, after which a run ends: the folder of pictures is another.
MAX_BAD_SAMPLES = 100
# Of threads of a process: the largest machines have fewer cores.
MAX_THREADS = 1024
# Of processes that prepare batches: each is a copy of this one.
MAX_WORKERS = 256

# Of widths, counts and lengths: 700 times the widest published model.
MAX_SIZE = 10_000_000
_SIZES = (
    "batch_size", "chunk_size", "d_conv", "d_ff", "d_model", "d_state",
    "dt_rank", "embed_dim", "eval_batch_size", "expand", "factor", "head_dim", "image_size", "max_length",
    "max_new_tokens", "n_groups", "n_heads", "n_kv_heads", "num_heads", "row_length", "side", "size", "turns",
    "vocab_size",
)  # fmt: skip
_SHARES = ("final_lr", "hold", "warmup")
# Least and most of an argument, by its name, wherever a yaml or a config.json has it.
BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_SIZES, (1, MAX_SIZE)),
    **dict.fromkeys(_SHARES, (0, 1)),
    **dict.fromkeys(("seed", "seed_everything"), (0, MAX_SEED)),
    **dict.fromkeys(("depth", "n_layers"), (1, MAX_LAYERS)),
    "num_workers": (0, MAX_WORKERS),
    # a number without end stands for never
    **dict.fromkeys(("checkpoint_every", "every", "steps"), (1, 10**12)),
    "minutes": (1e-3, 1e6),
    "keep": (1, 10_000),
    "epochs": (1e-6, 1e6),
    "lr": (1e-30, 1e6),
    "weight_decay": (0, 1e6),
    # at 1 nothing would ever be forgotten
    "betas": (0, 0.999999999),
    "norm_eps": (1e-30, 1),
    "rope_theta": (1, 1e12),
    "A_range": (1e-30, 1e6),
    "dt_range": (1e-30, 1e6),
    "accumulate_grad_batches": (1, MAX_SIZE),
    "gradient_clip_val": (0, 1e30),
    # 0 is never
    "log_every_n_steps": (0, 10**12),
    "num_nodes": (1, 1_000_000),
    "val_check_interval": (1e-9, 10**12),
}
