"""Build of the native library that reads pictures, against a build of llama.cpp (`cobra export llama`)."""

import os
import subprocess
from pathlib import Path

from cobra.export.gguf.build_llama import TOOLCHAIN
from cobra.export.gguf.native_library import SOURCES, native_folder
from cobra.weights.saving import put, saving


def build_native(built: Path, is_for_arm64: bool = False) -> Path:
    """The folder that is there for these sources, or is made now in some seconds, whole or not at all.

    Args:
        built: folder of a build of llama.cpp with its headers.
        is_for_arm64: then the program alone is built, with llama.cpp in it.

    Raises:
        FileNotFoundError: where CMake is missing.
        CalledProcessError: where a command failed, which has said why.
    """
    if (made := native_folder(built)).is_dir():
        return made
    with saving(built) as folder:
        build = folder.parent / "build"
        options = [f"-DLLAMA_BUILD={built}"]
        target = "all"
        if is_for_arm64:
            options, target = [*options, f"-DCMAKE_TOOLCHAIN_FILE={TOOLCHAIN}"], "cobra-run"
        subprocess.run(["cmake", "-S", SOURCES, "-B", build, *options], check=True)
        jobs = str(os.cpu_count() or 1)
        subprocess.run(["cmake", "--build", build, "--target", target, "--parallel", jobs], check=True)
        for file in (*build.glob("libcobra_pictures.*"), *build.glob("cobra-run*")):
            file.rename(folder / file.name)
        put(folder, made)
    return made
