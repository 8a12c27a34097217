"""What runs an export where."""

import pytest

from cobra.export.targets import engine_of


def test_an_export_is_run_where_something_runs_it() -> None:
    assert engine_of("gguf", "vulkan") == "gguf-vulkan"
    with pytest.raises(ValueError, match="'executorch-cpu' on --device vulkan"):
        engine_of("executorch-cpu", "vulkan")
    with pytest.raises(ValueError, match="of target 'tape' on --device cpu"):
        engine_of("tape")
