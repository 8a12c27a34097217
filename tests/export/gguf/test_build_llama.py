"""`cobra export llama`, up to where a compiler works for minutes."""

from pathlib import Path

import pytest

from cobra.export.gguf.build_llama import build_llama, guard_layer_settings
from cobra.export.gguf.llama import built_folder

_INSTANCE = "    vk::InstanceCreateInfo made(flags, &app_info, layers{});\n"
_SETTINGS = (
    "    VkBool32 enable_best_practice = layer_settings;\n"
    "    vk::LayerSettingsCreateInfoEXT layer_setting_info(settings);\n"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Headers where the source has them."""
    source = tmp_path / "source"
    for name in (
        "include/llama.h",
        "ggml/include/ggml.h",
        "vendor/nlohmann/json.hpp",
        "vendor/stb/stb_image.h",
    ):
        (file := source / "vendor/llama.cpp" / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return source


def test_a_build_of_before_gets_the_headers_and_no_other_library(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))
    (library := built_folder() / "lib" / "libllama.so").parent.mkdir(parents=True)
    library.write_text("built")
    # nothing to compile with
    monkeypatch.setenv("PATH", "")
    built = build_llama(source=source)
    headers = {str(file.relative_to(built)) for file in built.rglob("include/**/*.h*")}
    assert headers == {
        "include/llama.h",
        "include/ggml.h",
        "include/nlohmann/json.hpp",
        "include/stb/stb_image.h",
    }
    assert library.read_text() == "built"
    # and asks for no source again
    assert build_llama() == built


def test_what_vulkan_is_built_with_is_named_where_it_is_missing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("cmake", "c++"):
        (tmp_path / tool).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))
    missing = r"vulkan\.hpp and .*spirv\.hpp and the program glslc.*: apt-get install libvulkan-dev glslc "
    with pytest.raises(FileNotFoundError, match=missing):
        build_llama("vulkan", source)
    assert not (tmp_path / "cache").exists()


def test_the_compiler_for_arm64_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cmake").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "cmake").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        FileNotFoundError, match=r"aarch64-linux-gnu-g\+\+ is not on the PATH.*: apt-get install g\+\+-"
    ):
        build_llama("arm64")


def test_a_layer_that_old_headers_do_not_know_is_left_out(tmp_path: Path) -> None:
    (file := tmp_path / "ggml-vulkan.cpp").write_text(
        f"before\n{_SETTINGS}{_INSTANCE.format(', &layer_setting_info')}after\n"
    )
    guard_layer_settings(file)
    assert file.read_text() == (
        f"before\n#ifdef VK_EXT_layer_settings\n{_SETTINGS}{_INSTANCE.format(', &layer_setting_info')}"
        f"#else\n{_INSTANCE.format('')}#endif\nafter\n"
    )
    with pytest.raises(ValueError, match="is not of llama-cpp-python"):
        guard_layer_settings(Path(__file__))
