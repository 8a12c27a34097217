"""The Lightning data module: sources of records, one processor, batches."""

import logging
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import lightning as L  # isort: skip
from torch.utils.data import DataLoader

from cobra.data.bad_sample import BadSample
from cobra.data.batch import Batch
from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.source import Source
from cobra.data.token_counts import TokenCounts
from cobra.train.samples import Encoded, Policy
from cobra.train.schedule import ResumableLoader, StageSampler, Supply, make_plan
from cobra.train.stages import Plan, Stage
from cobra.train.streams import Row

logger = logging.getLogger(__name__)

# A source of records; built when it is needed, not when the yaml is read.
SourceFactory = Callable[[], Source]


class DataModule(L.LightningDataModule):
    """Everything about data.

    Args:
        stages: set from the run's `stages`.
        tokenizer: directory with the tokenizer's files, or its name on the hub; `cobra:` starts a path inside
            the package.
        template: chat template file; the tokenizer's own when left out.
        train: training sources by name; stages say how much of each they use.
        val: sources that are answered during training, by name.
        held_out: sources whose loss is measured then, by name, in every stage: text, or chats with answers.
        test: sources that are answered by `test` and `predict`, by name.
        eval_batch_size: questions answered at a time; of held-out sources, records.
        max_length: longest training sequence, image tokens included.
        row_length: of rows that a stage packs; max_length when left out. Where most sequences are longer than
            a third of it much of a row stays empty, and a longer one wastes less.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        seed: of the order of examples.
        blind: feed zeros instead of pictures, in training and evaluation.
        on_bad_sample: what to do at a record that cannot be read, e.g. since its picture is missing: `skip`
            trains on the next of its source that has pictures as it has, or none, and leaves out a question
            or a part of a packed row; it tells each by its id, and how many there were. `raise` ends the run.
            `cobra data check` finds them before.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        tokenizer: str,
        template: str | None = None,
        train: dict[str, SourceFactory] | None = None,
        val: dict[str, SourceFactory] | None = None,
        held_out: dict[str, SourceFactory] | None = None,
        test: dict[str, SourceFactory] | None = None,
        eval_batch_size: int = 128,
        max_length: int = 2048,
        row_length: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        blind: bool = False,
        on_bad_sample: Policy = "skip",
    ) -> None:
        super().__init__()
        self.stages = stages
        self.tokenizer, self.template = tokenizer, template
        self.sources = {
            "train": train or {},
            "val": val or {},
            "held_out": held_out or {},
            "test": test or {},
        }
        self.eval_batch_size, self.max_length = eval_batch_size, max_length
        self.row_length = max_length if row_length is None else row_length
        if self.row_length < max_length:
            raise ValueError(f"row_length {row_length} must be at least max_length {max_length}: lower that")
        self.num_workers, self.seed, self.blind = num_workers, seed, blind
        self.on_bad_sample = on_bad_sample
        self.datasets: dict[str, dict[str, Source]] = {}
        self.bad: Counter[BadSample] = Counter()

    def setup(self, stage: str) -> None:
        """Build the sources that this part of the run needs."""
        self.chat = Chat(self.tokenizer, self.template)
        # of the sources and devices of an earlier part
        self.__dict__.pop("supply", None)
        measured = ("val", "held_out")
        for split in {"fit": ("train", *measured), "validate": measured}.get(stage, ("test",)):
            self.datasets[split] = {name: source() for name, source in self.sources[split].items()}
            for source in self.datasets[split].values():
                source.prepare(self.chat, self.max_length)
        if stage == "fit" and not self.stages:
            raise ValueError("no stages: say in `stages` what is trained, on what and for how long")
        if stage == "fit" and not self.datasets["train"]:
            raise ValueError("no training data: set data.train, e.g. to a cobra.data.llava.LlavaJson")

    @cached_property
    def supply(self) -> Supply:
        """What training batches are made of; counts tokens where stages go by them."""
        assert self.trainer is not None
        sources = self.datasets["train"]
        counted = [name for stage in self.stages if stage.batching != "random" for name in stage.data]
        counts = {name: self._counts(name) for name in dict.fromkeys(counted) if name in sources}
        return Supply(sources, self.trainer.world_size, self.seed, self.max_length, self.row_length, counts)

    def _counts(self, name: str) -> TokenCounts:
        """Counted by one device of a machine, read by all."""
        assert self.trainer is not None
        source, processor = self.datasets["train"][name], self.processor()
        strategy = self.trainer.strategy
        if self.trainer.local_rank:
            strategy.barrier("tokens are counted")
        counts = TokenCounts.of(source, name, processor)
        if not self.trainer.local_rank:
            strategy.barrier("tokens are counted")
        # else each machine would make batches of its own, and wait for the others' in vain
        if strategy.broadcast(counts.digest()) != counts.digest():
            raise ValueError(
                f"the records of {name} have other tokens on machine {self.trainer.node_rank} than on the "
                "first: give all machines the same files"
            )
        if counts.problems and not self.trainer.local_rank:
            index, reason = next(iter(counts.problems.items()))
            logger.warning(
                "%d of %d records of %s cannot be encoded, e.g. number %d: %s",
                len(counts.problems), len(source), name, index, reason,
            )  # fmt: skip
        return counts

    def plan(self) -> Plan:
        """The stages with their lengths in optimizer steps."""
        assert self.trainer is not None
        return make_plan(self.stages, self.supply, self.trainer.accumulate_grad_batches)

    def identity(self) -> dict[str, Any]:
        """What is cheaply known of the training data, as plain data: two runs that differ in it differ."""
        used = sorted({name for stage in self.stages for name in stage.data})
        # grouped and packed batches depend on them
        counts = {name: counts.digest() for name, counts in self.supply.counts.items()}
        return {
            **({"token_counts": counts, "row_length": self.row_length} if counts else {}),
            "seed": self.seed,
            "blind": self.blind,
            "max_length": self.max_length,
            "vocabulary": len(self.chat),
            "train": {name: self.datasets["train"][name].identity() for name in used},
        }

    def processor(self) -> Processor:
        """The processor for the model that is being trained or evaluated."""
        assert self.trainer is not None
        model = self.trainer.lightning_module.model
        return Processor.of(model, self.chat, self.max_length, self.blind)

    def train_dataloader(self) -> ResumableLoader:
        """The batches of the whole run."""
        assert self.trainer is not None
        sampler = StageSampler(
            self.plan(), self.supply, self.trainer.accumulate_grad_batches, self.trainer.global_rank
        )
        data = Encoded(
            self.datasets["train"], self.processor(), on_bad_sample=self.on_bad_sample, room=self.row_length
        )
        return ResumableLoader(
            data,
            batch_sampler=sampler,
            collate_fn=data.collate,
            num_workers=self.num_workers,
            # copies to a GPU then run beside its work
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_outlive,
        )

    def val_dataloader(self) -> list[DataLoader]:
        """Questions, one loader a source, then what is held out."""
        return [*self._measured("val"), *self._measured("held_out", prompt=False)]

    def test_dataloader(self) -> list[DataLoader]:
        """Questions, one loader a source."""
        return self._measured("test")

    def predict_dataloader(self) -> list[DataLoader]:
        """Questions, one loader a source."""
        return self._measured("test")

    def _measured(self, split: str, prompt: bool = True) -> list[DataLoader]:
        processor = self.processor()
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        loaders = []
        for name, source in self.datasets[split].items():
            data = Encoded({name: source}, processor, prompt, counted=True, on_bad_sample=self.on_bad_sample)
            rows: list[Row] = [((name, index),) for index in range(rank, len(source), world)]
            loader = DataLoader(
                data,
                # a device that has no record has a batch of none: all are there when numbers are gathered
                sampler=rows or [()],
                batch_size=self.eval_batch_size,
                collate_fn=data.collate,
                num_workers=self.num_workers,
                worker_init_fn=_outlive,
            )
            loaders.append(loader)
        return loaders

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Tell which records could not be read, each once.

        Raises:
            ValueError: where the run is to end for want of them.
        """
        for sample in batch.bad:
            self.bad[sample] += 1
            if self.bad[sample] == 1:
                logger.warning("skipped %s (%d so far)", sample, len(self.bad))
        if batch.error:
            raise ValueError(batch.error)
        return batch

    def teardown(self, stage: str) -> None:
        """Tell how many records could not be read, of each source."""
        for name, records in Counter(sample.source for sample in self.bad).items():
            times = sum(count for sample, count in self.bad.items() if sample.source == name)
            logger.warning("skipped %d records of %s, %d times in all", records, name, times)


def _outlive(worker: int) -> None:
    """A worker goes on after one SIGTERM, which batch systems send to all processes: the run still needs it.

    After another it ends: at the exit of a process torch and Python send one each to a worker that is left.
    The signal that SLURM sends before a time limit goes to all processes, too.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
