"""Names of what a stage trains: parts of the model, and modules within them."""

from torch import nn

from cobra.models.vlm import CobraVLM


def named_modules(model: CobraVLM, name: str) -> dict[str, nn.Module]:
    """The modules, by their paths, of a name in a stage's `train`, e.g. `lm` or `vision.tower.blocks.12-`.

    Args:
        model: whose parts.
        name: a part, or the path of a module in it. A number on the path may be a range: `12-` are those
            from 12 on, `12-15` four of them.

    Raises:
        ValueError: where there is none of the name, saying what there is.
    """
    first, *path = name.split(".")
    found: dict[str, nn.Module] = {"": nn.ModuleDict(model.parts())}
    for step in (first, *path):
        found = {
            f"{prefix}{child}.": module
            for prefix, parent in found.items()
            for child, module in _children(parent, prefix, step).items()
        }
    return {path.removesuffix("."): module for path, module in found.items()}


def _children(parent: nn.Module, prefix: str, step: str) -> dict[str, nn.Module]:
    children = dict(parent.named_children())
    first, dash, last = step.partition("-")
    if dash and first.isdecimal() and (last or first).isdecimal():
        end = int(last) if last else len(children)
        chosen = {n: m for n, m in children.items() if n.isdecimal() and int(first) <= int(n) <= end}
    else:
        chosen = {n: m for n, m in children.items() if n == step}
    if not chosen:
        where = prefix.removesuffix(".") or "the model"
        numbers = [name for name in children if name.isdecimal()]
        there = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else ", ".join(children) or "nothing"
        raise ValueError(f"{where} has no {step!r}: it holds {there}")
    return chosen
