"""llama.cpp built from source into the cache, for this machine's CPU (`cobra export llama`)."""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from cobra.export.gguf.llama import VERSION, built_folder
from cobra.weights.saving import put, saving

_ARCHIVE = f"llama_cpp_python-{VERSION}"
# no -march=native: a build with AMX dies in quantised products on some machines that have it. Threads of
# ggml's own, since torch brings an OpenMP runtime of another kind
_OPTIONS = (
    "CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=ON", "GGML_NATIVE=OFF", "GGML_OPENMP=OFF",
    "CMAKE_BUILD_WITH_INSTALL_RPATH=ON", "CMAKE_INSTALL_RPATH=$ORIGIN", "LLAMA_CURL=OFF",
    *(f"LLAMA_BUILD_{part}=OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER")),
)  # fmt: skip
_AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "avx512vbmi", "avx512_vnni"}
_AVX512_OPTIONS = ("GGML_AVX512=ON", "GGML_AVX512_VBMI=ON", "GGML_AVX512_VNNI=ON")


def build_llama(source: Path | None = None, jobs: int | None = None) -> Path:
    """The folder of a build that is there or is made now, whole or not at all.

    Args:
        source: folder of llama-cpp-python's source; None fetches its archive from the package index.
        jobs: compilers at a time; None runs one for each CPU.

    Raises:
        FileNotFoundError: where CMake or a compiler is missing.
        CalledProcessError: where a command failed, which has said why.
    """
    built = built_folder()
    if (built / "lib").is_dir():
        return built
    for tool, remedy in (("cmake", "pip install cmake"), ("c++", "install a C++ compiler, e.g. g++")):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not on the PATH, and llama.cpp is built with it: {remedy}")
    built.parent.mkdir(parents=True, exist_ok=True)
    with saving(built.parent) as folder:
        source = source or _fetched(folder.parent)
        build = folder.parent / "build"
        options = [f"-D{option}" for option in (*_OPTIONS, *_instructions())]
        subprocess.run(["cmake", "-S", source / "vendor" / "llama.cpp", "-B", build, *options], check=True)
        subprocess.run(
            ["cmake", "--build", build, "--target", "llama", "--parallel", str(jobs or os.cpu_count())],
            check=True,
        )
        _collect(source, build, folder)
        put(folder, built)
    return built


def _fetched(folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
         "--dest", folder, f"llama-cpp-python=={VERSION}"],
        check=True,
    )  # fmt: skip
    with tarfile.open(folder / f"{_ARCHIVE}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / _ARCHIVE


def _instructions() -> tuple[str, ...]:
    """AVX-512 where Linux says that the CPU has it; AVX2 on any other x86, NEON on arm64."""
    file = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not file.is_file():
        return ()
    flags = next((line for line in file.read_text().splitlines() if line.startswith("flags")), "").split()
    return _AVX512_OPTIONS if set(flags) >= _AVX512 else ()


def _collect(source: Path, build: Path, folder: Path) -> None:
    """The libraries and the two files of bindings that they need."""
    (folder / "lib").mkdir()
    (folder / "llama_cpp").mkdir()
    for file in build.glob("bin/lib*"):
        shutil.copy(file, folder / "lib" / file.name, follow_symlinks=False)
    for name in ("llama_cpp.py", "_ctypes_extensions.py"):
        shutil.copy(source / "llama_cpp" / name, folder / "llama_cpp" / name)
