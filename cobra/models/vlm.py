"""The model: a picture and text go in, text comes out."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from cobra.models.choices import Choices, check_choices, score_choices
from cobra.models.component import Component
from cobra.models.generate import decode
from cobra.models.linear import adopt_linears
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state import State
from cobra.models.projectors.base import Projector
from cobra.models.quantize import building_lm
from cobra.models.sampling import Sampler
from cobra.models.special_ids import IGNORE_ID, IMAGE_ID
from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.pictures import ONE_TILE, Pictures, Pixels, check_room

# logits that exist at a time in training: half a gigabyte in fp32, beside as much of their gradient
_LOGITS = 2**27


class CobraVLM(Component):
    """Vision encoder, projector and language model.

    Where it takes pictures, pixels (pictures, ...) do for an encoder that sees each as one tile.

    Args:
        vision: the encoder, as a factory.
        projector: called with the widths of the encoder and of the language model.
        lm: the language backbone, as a factory.

    Attributes:
        num_image_tokens: of a picture by its layout; holds no weights, so that a worker process can count.
        adapters: of its parts, by their names; see `cobra.models.adapters.adapt`.
    """

    def __init__(
        self,
        vision: Callable[[], VisionEncoder],
        projector: Callable[[int, int], Projector],
        lm: Callable[[], LanguageModel],
    ) -> None:
        super().__init__()
        self.vision: VisionEncoder = _built(vision(), VisionEncoder, "vision")
        with building_lm():
            self.lm: LanguageModel = _built(lm(), LanguageModel, "lm")
        widths = (self.vision.embed_dim, self.lm.d_model)
        self.projector: Projector = _built(projector(*widths), Projector, "projector")
        self.num_image_tokens = self.projector.counter(self.vision.num_patches)
        self.adapters: dict[str, Any] = {}
        adopt_linears(self)

    def forward(
        self, ids: Tensor, pictures: Pictures | Pixels | None = None, seq_idx: Tensor | None = None
    ) -> Tensor:
        """Token ids (B, T), IMAGE_ID where image tokens go, and pictures to hidden states (B, T, D).

        `seq_idx` (B, T) numbers the sequences that are packed into a row; see `LanguageModel.prefill`.
        """
        return self.lm.prefill(self.splice(ids, pictures), seq_idx=seq_idx)

    def splice(self, ids: Tensor, pictures: Pictures | Pixels | None = None) -> Tensor:
        """Token ids (B, T) and pictures to embeddings (B, T, D), pictures in reading order over the batch.

        Raises:
            ValueError: where the ids have no place for exactly the image tokens of the pictures. Ids on a
                device are waited for, unless the pictures were checked; in a compiled graph none are counted.
        """
        pictures, is_image = Pictures.of(pictures), ids == IMAGE_ID
        self._check(is_image, pictures)
        embeds = self.lm.embed(ids.masked_fill(is_image, 0))
        if pictures.pixels is None:
            return embeds + self._zero() if self.training else embeds
        image_tokens = self.image_tokens(pictures)
        # in reading order; of masked_scatter the gradient would wait for the device to count them
        places = is_image.flatten().logical_not().int().argsort(stable=True)[: len(image_tokens)]
        rows = embeds.flatten(0, 1).index_copy(0, places, image_tokens.to(embeds.dtype))
        return rows.view_as(embeds)

    def image_tokens(self, pictures: Pictures) -> Tensor:
        """Image tokens of all pictures (tokens, D), in reading order."""
        dtype = next(self.vision.parameters()).dtype
        # not `pictures.map`, which reads the layouts: a graph would be compiled for each
        patches = self.vision(tree_map(lambda p: p.to(dtype), pictures.pixels))  # (tiles, N, width)
        tokens = self.projector.arrange(self.projector(patches), pictures.layouts)
        if not torch.compiler.is_compiling() and len(tokens) != (counted := sum(self._count(pictures))):
            raise ValueError(
                f"{type(self.projector).__name__} makes {len(tokens)} image tokens of what it counts as "
                f"{counted}: let its `num_tokens`, `arrange` and `counter` agree"
            )
        return tokens

    def _check(self, is_image: Tensor, pictures: Pictures) -> None:
        # before the encoder runs: what is on a device already can be counted there without a long wait
        known = pictures.checked and not is_image.is_cpu
        if not (known or is_image.is_meta or torch.compiler.is_compiling()):
            check_room(is_image.sum(1).tolist(), self._count(pictures))

    def _count(self, pictures: Pictures) -> list[int]:
        return [self.num_image_tokens(layout) for layout in pictures.each()]

    def _zero(self) -> Tensor:
        """0, through what learns of projector or tower: text alone must give it a gradient too, if of zeros.

        Without it a stage that trains them only has nothing to differentiate, and devices that wait for each
        other's gradients hang.
        """
        weight = next(self.projector.parameters())
        patches = weight.new_zeros(1, self.vision.num_patches, self.vision.embed_dim)
        zero = 0 * self.projector.arrange(self.projector(patches), (ONE_TILE,)).sum()
        if zero.requires_grad:
            return zero
        return zero + sum(0 * p.flatten()[0] for p in self.vision.parameters() if p.requires_grad)

    def loss(self, hidden: Tensor, labels: Tensor, places: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of the next token, over labels (B, T) that are not IGNORE_ID; 0 without any.

        The head runs only where there is a label: on a prompt of image tokens it would be most of the work.
        Where that is much it runs in pieces, and again in the backward pass, so that never all logits exist.

        Args:
            hidden: (B, T, D).
            labels: (B, T).
            places: `label_places(labels)`, where it is known: labels on a device have to be waited for.
        """
        places = label_places(labels) if places is None else places
        rows = hidden.flatten(0, 1).index_select(0, places)  # (K, D)
        targets = labels.flatten().index_select(0, places + 1)
        size = max(1, _LOGITS // self.lm.vocab_size)
        if len(places) <= size:
            total = self._cross_entropy(rows, targets)
        else:
            pieces = zip(rows.split(size), targets.split(size), strict=True)
            total = sum(checkpoint(self._cross_entropy, *piece, use_reentrant=False) for piece in pieces)
        return total / max(1, len(places))

    def _cross_entropy(self, rows: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.lm.head(rows).float(), targets, reduction="sum")

    @torch.inference_mode()
    def stream(
        self,
        ids: Tensor,
        pictures: Pictures | Pixels | None = None,
        mask: Tensor | None = None,
        *,
        max_new_tokens: int = 256,
        eos_id: int | None = None,
        sampler: Sampler | None = None,
        suppress: Tensor | None = None,
        state: State | None = None,
        ahead: bool = False,
    ) -> Iterator[Tensor]:
        """New token ids (B,), one position at a time; see `cobra.models.generate.decode`.

        Args:
            ids: prompts (B, T), padded where `mask` is False.
            pictures: all pictures in the prompts.
            mask: (B, T) bool, None when no row is padded.
            max_new_tokens: positions to generate at most.
            eos_id: stops a row; the loop ends when every row has stopped. None: never.
            sampler: how to choose a token; greedy by default.
            suppress: ids (N,) that are never chosen; see `Chat.unknown_ids`.
            state: continue from here, and leave the state after the last token that was read.
            ahead: for who collects all tokens and leaves the state; see `decode`.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {max_new_tokens} must be at least 1")
        if state is None:
            state = self.lm.allocate_state(ids.shape[0], ids.shape[1] + max_new_tokens)
        hidden = self.lm.prefill(self.splice(ids, pictures), state, mask)
        last = _last(hidden, mask)
        yield from decode(self.lm, last, state, max_new_tokens, eos_id, sampler or Sampler(), suppress, ahead)

    def generate(
        self,
        ids: Tensor,
        pictures: Pictures | Pixels | None = None,
        mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """New token ids (B, L), L the longest answer; shorter rows end in eos. Options as for `stream`."""
        ahead = options.get("state") is None
        return torch.stack(list(self.stream(ids, pictures, mask, ahead=ahead, **options)), dim=1)

    @torch.inference_mode()
    def score_choices(
        self,
        ids: Tensor,
        pictures: Pictures | Pixels | None = None,
        mask: Tensor | None = None,
        *,
        choices: Sequence[Choices],
        state: State | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """Log-likelihood of each choice after its prompt, one tensor (choices,) a row; nothing is read twice.

        Args:
            ids: prompts (B, T), padded where `mask` is False.
            pictures: all pictures in the prompts.
            mask: (B, T) bool, None when no row is padded.
            choices: token ids of each choice of each row; rows and choices may differ in length. Those of a
                text are `Chat.answer_ids`.
            state: continue from here, and leave the state behind the prompts.
            rows: of `state`, one that each prompt is read behind instead, perhaps several behind one; the
                state is left as it is. Choices of several tokens are said behind copies of it.

        Raises:
            ValueError: where there is no choice, rows are of no state, or logits are no finite numbers.
        """
        check_choices(choices, len(ids), self.lm.vocab_size)
        longest = max(len(choice) for given in choices for choice in given)
        if state is None and longest > 1 and rows is None:
            state = self.lm.allocate_state(ids.shape[0], ids.shape[1] + longest - 1)
        if state is not None and rows is not None and longest > 1:
            # what comes behind the prompts must find what they said
            state, rows = state.take(rows), None
        hidden = self.lm.prefill(self.splice(ids, pictures), state, mask, rows=rows)
        return score_choices(self.lm, _last(hidden, mask), state, choices)

    def arguments(self) -> dict[str, Any]:
        """The parts that were built."""
        return {"vision": self.vision, "projector": self.projector, "lm": self.lm}

    def parts(self) -> dict[str, nn.Module]:
        """The parts by name, in data order; a training stage names those that it trains."""
        return {"vision": self.vision, "projector": self.projector, "lm": self.lm}


def label_places(labels: Tensor) -> Tensor:
    """Where (K,), in the rows of labels (B, T) laid end to end, the next token has a label."""
    return (F.pad(labels[:, 1:], (0, 1), value=IGNORE_ID) != IGNORE_ID).flatten().nonzero().squeeze(1)


def _last(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Hidden states (B, D) of each row's last token that is no padding."""
    if mask is None:
        return hidden[:, -1]
    index = torch.arange(hidden.shape[1], device=mask.device)
    return hidden[torch.arange(len(hidden), device=mask.device), (mask * index).argmax(1)]


def _built(part: Any, contract: type, name: str) -> Any:
    if not isinstance(part, contract):
        raise ValueError(f"{name} must make a {contract.__name__}, it made {type(part).__name__}")
    return part
