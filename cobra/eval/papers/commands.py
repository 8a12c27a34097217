"""Commands that make a paper's numbers here: weights, answers, speed."""

from collections.abc import Iterator

from cobra.eval.benchmarks.find import benchmark_names
from cobra.eval.papers.paper import Paper, System
from cobra.eval.published import read_numbers


def paper_commands(paper: Paper, protocols: list[str]) -> list[str]:
    """Lines of a shell script; those that begin with # are for people.

    Args:
        paper: whose systems are made.
        protocols: beside the paper's own, by which they are asked too.
    """
    lines = []
    done = []
    for name, system in paper.systems.items():
        made = list(_of_system(paper, name, system, protocols))
        lines += [f"# {name}", *made, ""]
        done += [f'  "{name}={evaluated(paper, name)}"'] if not made[-1].startswith("#") else []
    configs = dict.fromkeys(system.config for system in paper.systems.values() if system.config)
    if not paper.tasks:
        lines += [
            "# speed",
            f"cobra bench e2e --models {' '.join(configs)} --out runs/{paper.name}/bench",
            "",
        ]
    page = " \\\n".join([f"cobra reproduce {paper.name} --runs", *done])
    return [*lines, "# this page, with ours in it", page]


def evaluated(paper: Paper, system: str) -> str:
    """The folder that the commands leave a system's answers in."""
    return f"runs/{paper.name}/{_slug(system)}/eval"


def _of_system(paper: Paper, name: str, system: System, protocols: list[str]) -> Iterator[str]:
    if paper.tasks and not system.weights:
        yield "# no weights are released, and no config here trains it"
        return
    folder = f"runs/{paper.name}/{_slug(name)}"
    if system.weights:
        yield f"cobra convert {system.weights} {folder}/model"
    else:
        yield "# no weights are released: train it; mine.yaml says where the data lie (docs/training.md)"
        yield f"cobra fit {_configs(system.config)} -c mine.yaml --trainer.default_root_dir {folder}"
        if system.adapter:
            yield f"cobra merge {folder}/adapter {folder}/model"
    out = evaluated(paper, name)
    if paper.tasks:
        yield f"cobra eval lm {folder}/model --tasks {paper.tasks} --output_path {out}"
        return
    asked = ",".join(_benchmarks(paper, name))
    how = ",".join(dict.fromkeys([paper.protocol, *protocols]))
    yield f"cobra eval {folder}/model --benchmarks {asked} --protocol {how} --data data --out {out}"


def _benchmarks(paper: Paper, system: str) -> list[str]:
    """What a system's rows have that can be asked here; of a system without such a row all of its paper."""
    numbers = [number for number in read_numbers() if number.table in paper.tables and not number.quoted]
    of_system = [number.benchmark for number in numbers if number.system == system]
    for printed in (of_system, [number.benchmark for number in numbers], paper.benchmarks):
        asked = [name for name in dict.fromkeys(printed) if name in benchmark_names()]
        if asked:
            return asked
    raise ValueError(f"{paper.name} has no benchmark that can be asked here")


def _configs(name: str) -> str:
    base, _, variant = name.partition("/")
    return f"-c configs/{base}.yaml" + (f" -c configs/variants/{name}.yaml" if variant else "")


def _slug(name: str) -> str:
    return "-".join(name.replace(",", "").replace("+", "and").split())
