"""A language model that is small enough to be timed in a test."""

from cobra.bench.subjects import Subject

LLAMA = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 8}
TINY = Subject(
    "tiny-llama",
    {
        "class_path": "cobra.models.lm.transformer.TransformerLM",
        "init_args": {"vocab_size": 512, "d_model": 32, "n_layers": 2, "options": LLAMA},
    },
)
