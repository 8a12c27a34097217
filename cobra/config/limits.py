"""Bounds of what files make that need not be trusted, each far above what any model or picture here needs."""

# Of a picture. Decoded it takes at most a gigabyte: 8 bytes a pixel.
MAX_PIXELS = 120_000_000
# What JPEG can hold, and more than any camera or screenshot has.
MAX_SIDE = 65_500

# Of what a chat template makes at once, in characters: a long chat has some 100,000.
MAX_TEMPLATE_TEXT = 5_000_000
# Of what it does in all, in characters that it makes and 200 a call: a chat of 100 turns takes a million.
MAX_TEMPLATE_WORK = 20_000_000

# Of a language model: the deepest that are published have some 130 blocks.
MAX_LAYERS = 1000
# Parameters of a model that a published configuration describes, counted before they have memory.
MAX_TENSORS = 20_000
# Of a token id: the largest published vocabularies have 260,000 words.
MAX_TOKEN_ID = 10_000_000
