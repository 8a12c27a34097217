"""Runtimes of `--runtime`, and what each knows of `--quant`. No torch here."""

from collections.abc import Mapping, Sequence

from cobra.export.targets import TARGETS

OURS, TRANSFORMERS, GGUF, EXECUTORCH = "torch", "transformers", "gguf", "executorch"
# runtimes of mobile builds, and the targets that they run
BUILDS: Mapping[str, str] = {GGUF: "gguf", EXECUTORCH: "executorch-cpu"}
# precisions of a language model's weights by runtime, the default first
QUANTS: Mapping[str, tuple[str, ...]] = {
    OURS: ("none", "bf16", "int8", "int4"),
    TRANSFORMERS: ("none",),
    **{runtime: TARGETS[target].quants for runtime, target in BUILDS.items()},
}


def chosen_quants(runtimes: Sequence[str], asked: Sequence[str]) -> dict[str, list[str]]:
    """For each runtime those of what was asked for that it knows; the first that it knows where nothing was.

    Raises:
        ValueError: where a runtime knows none of them, or none of the runtimes knows one.
    """
    for name in asked:
        if not any(name in QUANTS[runtime] for runtime in runtimes):
            known = "; ".join(f"{runtime} knows {', '.join(QUANTS[runtime])}" for runtime in runtimes)
            raise ValueError(f"--quant {name} is known to none of the runtimes: {known}")
    return {runtime: _chosen(runtime, asked) for runtime in runtimes}


def _chosen(runtime: str, asked: Sequence[str]) -> list[str]:
    known = QUANTS[runtime]
    found = [name for name in asked or known[:1] if name in known]
    # transformers has its own weights alone, whatever the others are asked for
    if not found and runtime != TRANSFORMERS:
        raise ValueError(
            f"--runtime {runtime} knows no --quant {', '.join(asked)}: name one of {', '.join(known)}"
        )
    return found
