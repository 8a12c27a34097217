"""Limits that several of upstream's functions have."""

from cobra.kernels.call import Call, Limit

NO_MASK = Limit(lambda call: call.shape("mask") is None, "takes no mask")


def one_dtype(*arguments: str) -> Limit:
    """Tensors that upstream reads as of one dtype."""

    def accepts(call: Call) -> bool:
        return len(set(call.dtypes(*arguments))) <= 1

    return Limit(accepts, f"takes {', '.join(arguments)} of one dtype only")


def not_empty(argument: str) -> Limit:
    """Upstream leaves uninitialized what it returns for no tokens, or cannot start its kernel."""

    def accepts(call: Call) -> bool:
        shape = call.shape(argument)
        return shape is not None and 0 not in shape

    return Limit(accepts, "takes no empty batch or sequence")
