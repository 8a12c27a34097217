"""llama.cpp built from source into the cache (`cobra export llama`): for CPUs, Vulkan as well, or arm64."""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from cobra.export.gguf.llama import ARM64, VERSION, built_folder
from cobra.export.gguf.native_library import SOURCES
from cobra.weights.saving import put, saving

_ARCHIVE = f"llama_cpp_python-{VERSION}"
# no -march=native: a build with AMX dies in quantised products on some machines that have it. Threads of
# ggml's own, since torch brings an OpenMP runtime of another kind
_OPTIONS = (
    "CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=ON", "GGML_NATIVE=OFF", "GGML_OPENMP=OFF",
    "CMAKE_BUILD_WITH_INSTALL_RPATH=ON", "CMAKE_INSTALL_RPATH=$ORIGIN", "LLAMA_CURL=OFF",
    *(f"LLAMA_BUILD_{part}=OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER")),
    # how llama.cpp's own programs see
    "LLAMA_BUILD_MTMD=ON", "MTMD_VIDEO=OFF",
)  # fmt: skip
_TARGETS = ("llama", "mtmd")
# compiles for a phone's CPU
TOOLCHAIN = SOURCES / "aarch64-linux.cmake"
_OPTIONS_OF = {
    "cpu": (),
    "vulkan": ("GGML_VULKAN=ON",),
    **{
        variant: (
            "BUILD_SHARED_LIBS=OFF", "LLAMA_BUILD_MTMD=OFF", f"CMAKE_TOOLCHAIN_FILE={TOOLCHAIN}",
            f"GGML_CPU_ARM_ARCH={instructions}",
        )
        for variant, instructions in ARM64.items()
    },
}  # fmt: skip
_AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "avx512vbmi", "avx512_vnni"}
_AVX512_OPTIONS = ("GGML_AVX512=ON", "GGML_AVX512_VBMI=ON", "GGML_AVX512_VNNI=ON")
# what programs beside llama.cpp are compiled with, by where it goes
_HEADERS = {
    "include/*.h": "",
    "ggml/include/*.h": "",
    "vendor/nlohmann/*.hpp": "nlohmann",
    "vendor/stb/*.h": "stb",
}
_VULKAN_HEADERS = ("vulkan/vulkan.hpp", "spirv/unified1/spirv.hpp")
_VULKAN_REMEDY = "apt-get install libvulkan-dev glslc spirv-headers (Debian's names), or the Vulkan SDK"


def build_llama(variant: str = "cpu", source: Path | None = None, jobs: int | None = None) -> Path:
    """The folder of a build that is there or is made now, whole or not at all.

    One that lacks the headers, which builds of before have not, gets them.

    Args:
        variant: one of `cobra.export.gguf.llama.VARIANTS`, or of `ARM64` there.
        source: folder of llama-cpp-python's source; None fetches its archive from the package index.
        jobs: compilers at a time; None runs one for each CPU.

    Raises:
        FileNotFoundError: where CMake, a compiler or what the variant is built with is missing.
        CalledProcessError: where a command failed, which has said why.
    """
    built = built_folder(variant)
    is_built = (built / "lib").is_dir()
    if is_built and (built / "include").is_dir():
        return built
    if not is_built:
        _check_tools(variant)
    built.parent.mkdir(parents=True, exist_ok=True)
    with saving(built.parent) as folder:
        source = source or _fetched(folder.parent)
        _collect_headers(source, folder / "include")
        if is_built:
            put(folder / "include", built / "include")
            return built
        build = folder.parent / "build"
        _compile(_sources(variant, source, folder.parent), build, variant, jobs or os.cpu_count() or 1)
        _collect(source, build, folder)
        put(folder, built)
    return built


def _check_tools(variant: str) -> None:
    compiler = ("c++", "install a C++ compiler, e.g. g++")
    if variant in ARM64:
        compiler = ("aarch64-linux-gnu-g++", "apt-get install g++-aarch64-linux-gnu (Debian's name)")
    for tool, remedy in (("cmake", "pip install cmake"), compiler):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not on the PATH, and llama.cpp is built with it: {remedy}")
    if variant != "vulkan":
        return
    missing = [header for header in _VULKAN_HEADERS if not _finds(header)]
    if shutil.which("glslc") is None:
        missing.append("the program glslc")
    if missing:
        raise FileNotFoundError(
            f"llama.cpp's Vulkan backend is built with {' and '.join(missing)}, not found here: "
            f"{_VULKAN_REMEDY}"
        )


def _finds(header: str) -> bool:
    """Whether the compiler finds a header, where CMake looks for Vulkan as well."""
    kit = [f"-I{Path(said) / 'include'}"] if (said := os.environ.get("VULKAN_SDK")) else []
    return not subprocess.run(
        ["c++", "-std=c++17", *kit, "-E", "-x", "c++", "-include", header, os.devnull], capture_output=True
    ).returncode


def _fetched(folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
         "--dest", folder, f"llama-cpp-python=={VERSION}"],
        check=True,
    )  # fmt: skip
    with tarfile.open(folder / f"{_ARCHIVE}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / _ARCHIVE


def _sources(variant: str, source: Path, folder: Path) -> Path:
    """llama.cpp's own folder; for Vulkan a copy that old headers of Vulkan compile too."""
    sources = source / "vendor" / "llama.cpp"
    if variant != "vulkan":
        return sources
    copied = shutil.copytree(sources, folder / "llama.cpp")
    guard_layer_settings(copied / "ggml/src/ggml-vulkan/ggml-vulkan.cpp")
    return copied


def guard_layer_settings(file: Path) -> None:
    """Leave out what is said to a layer for debugging where Vulkan's headers lack VK_EXT_layer_settings.

    So those of Debian 12 (1.3.239). Headers that have it compile what they did.

    Raises:
        ValueError: where the file does not say it as llama.cpp of `VERSION` does.
    """
    text = file.read_text(encoding="utf-8")
    first, last = "    VkBool32 enable_best_practice = layer_settings;\n", ", &layer_setting_info);\n"
    start, end = text.find(first), text.find(last) + len(last)
    if start < 0 or end < start:
        raise ValueError(f"{file} is not of llama-cpp-python {VERSION}: leave --source out")
    made = text[text.rindex("\n", 0, end - 1) + 1 : end]
    guarded = (
        f"#ifdef VK_EXT_layer_settings\n{text[start:end]}#else\n"
        f"{made.replace(', &layer_setting_info', '')}#endif\n"
    )
    file.write_text(text[:start] + guarded + text[end:], encoding="utf-8")


def _compile(sources: Path, build: Path, variant: str, jobs: int) -> None:
    is_other, own = variant in ARM64, _OPTIONS_OF[variant]
    options = [f"-D{option}" for option in (*_OPTIONS, *(() if is_other else _instructions()), *own)]
    subprocess.run(["cmake", "-S", sources, "-B", build, *options], check=True)
    targets = _TARGETS[:1] if is_other else _TARGETS
    subprocess.run(["cmake", "--build", build, "--target", *targets, "--parallel", str(jobs)], check=True)


def _instructions() -> tuple[str, ...]:
    """AVX-512 where Linux says that the CPU has it; AVX2 on any other x86, NEON on arm64."""
    file = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not file.is_file():
        return ()
    flags = next((line for line in file.read_text().splitlines() if line.startswith("flags")), "").split()
    return _AVX512_OPTIONS if set(flags) >= _AVX512 else ()


def _collect_headers(source: Path, folder: Path) -> None:
    for pattern, place in _HEADERS.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for file in (source / "vendor" / "llama.cpp").glob(pattern):
            shutil.copy(file, folder / place / file.name)


def _collect(source: Path, build: Path, folder: Path) -> None:
    """The libraries and the files of bindings that they need."""
    (folder / "lib").mkdir()
    (folder / "llama_cpp").mkdir()
    for file in (*build.glob("bin/lib*"), *build.rglob("*.a")):
        shutil.copy(file, folder / "lib" / file.name, follow_symlinks=False)
    for name in ("llama_cpp.py", "mtmd_cpp.py", "_ctypes_extensions.py"):
        shutil.copy(source / "llama_cpp" / name, folder / "llama_cpp" / name)
