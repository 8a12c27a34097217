"""The precision of training that this CPU is faster in."""

from cobra.kernels.product_rates import bf16_speed

# bf16 also costs conversions: it must win clearly
_GAIN = 1.5


def fastest_precision() -> str:
    """Lightning's name of the faster training precision."""
    return "bf16-mixed" if bf16_speed() > _GAIN else "32-true"
