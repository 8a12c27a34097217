"""What a machine lacks, told from what is wrong with a build."""

# status of `cobra export run` where that is so
LACKING = 3


class LackingError(OSError):
    """llama.cpp or a part of it was not built here, or there is no device that can run the model."""
