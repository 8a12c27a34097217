"""Bounds of what files make that need not be trusted, each far above what any model or picture here needs."""

# Of a picture. Decoded it takes at most a gigabyte: 8 bytes a pixel.
MAX_PIXELS = 120_000_000
# What JPEG can hold, and more than any camera or screenshot has.
MAX_SIDE = 65_500
