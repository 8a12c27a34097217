"""Language models for lm-evaluation-harness: of a vision-language model its own alone, or one by itself.

    cobra eval lm MODEL --tasks commonsense --batch_size 16

`commonsense` is the group of MobileLLM's eight tasks (see `lm_eval_tasks`). lm-evaluation-harness finds no
model of another package by itself: importing this file gives it the name `cobra`.
"""

import os
from collections.abc import Sequence
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lm_eval, which imports transformers)

import torch  # isort: skip
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from cobra.config.config_json import CONFIG, LM, read_config
from cobra.data.chat import load_tokenizer
from cobra.eval.harness.generation import Generation, batches, texts
from cobra.eval.harness.harness_model import batch_size_of, device_of, dtype_of
from cobra.eval.opening import Settings, model_path, open_model
from cobra.inference.answer import DTYPES
from cobra.models.generate import decode
from cobra.pretrained import lm_from_pretrained

# logits that exist at a time: half a gigabyte in fp32
_LOGITS = 2**27


@register_model("cobra")
class CobraLM(TemplateLM):
    """Log-likelihoods and continuations of text, several at once as each alone.

    Args:
        pretrained: folder of a model or of a language model, a run's checkpoints/last.ckpt, or a published
            checkpoint of either.
        batch_size: texts at a time, as `--batch_size`.
        device: as `--device`; a GPU where there is one.
        dtype: of weights and activations, e.g. bf16.
        quant: packing of the weights: none, bf16, int8 or int4.
        max_length: of a text in tokens: a longer one loses its beginning, as that harness does it.
        max_batch_size: the harness gives it; it is for a batch size that is looked for, which ours is not.
    """

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "fp32",
        quant: Any = "none",
        max_length: int = 2048,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError("several processes would each answer everything: start one")
        self.batch_size, self.max_length = batch_size_of(batch_size), int(max_length)
        self._device = torch.device(device_of(device))
        path = model_path(os.path.expanduser(pretrained))
        settings = Settings(dtype_of(dtype), quant)
        if path.is_dir() and read_config(path / CONFIG).get("model_type") == LM:
            self.lm = lm_from_pretrained(path, str(self._device), DTYPES[settings.dtype], quant)
            self.tokenizer = load_tokenizer(str(path))
        else:
            model, processor = open_model(path, settings, str(self._device))
            self.lm, self.tokenizer = model.lm, processor.chat.tokenizer
        known = torch.tensor([*self.tokenizer.get_vocab().values()])
        is_unknown = torch.ones(self.lm.vocab_size, dtype=torch.bool).index_fill(0, known, False)
        self._unknown = is_unknown.nonzero().flatten().to(self._device)

    @property
    def eot_token_id(self) -> int:
        """The end of a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache of requests."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The chat as its template writes it."""
        # templates here write parts of a turn
        turns = [
            {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
            for turn in chat_history
        ]
        return self.tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids, behind the token that begins a text where the tokenizer writes one."""
        begin = self.tokenizer.bos_token
        if add_special_tokens is None and begin and string.startswith(begin):
            add_special_tokens = False
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(string, **options)

    @torch.inference_mode()
    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        lengths = [len(context) + len(continuation) for _, context, continuation in requests]
        with tqdm(total=len(requests), disable=disable_tqdm, desc="likelihoods") as bar:
            for places in batches([0] * len(requests), lengths, self.batch_size):
                rows = [requests[place][1:] for place in places]
                for place, score in zip(places, self._scores(rows), strict=True):
                    found[place] = score
                    if requests[place][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[place][0], score)
                bar.update(len(places))
        return found

    def _scores(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations behind their contexts, and whether they are likeliest."""
        read = [(context + continuation)[-self.max_length - 1 :][:-1] for context, continuation in rows]
        width = max(map(len, read))
        # what follows a token does not change what is known behind it: no mask
        ids = torch.tensor([row + [0] * (width - len(row)) for row in read], device=self._device)
        hidden = self.lm.prefill(self.lm.embed(ids))  # (B, T, D)
        return [
            self._score(own[max(0, len(row) - len(continuation)) : len(row)], continuation)
            for own, row, (_, continuation) in zip(hidden, read, rows, strict=True)
        ]

    def _score(self, hidden: torch.Tensor, continuation: list[int]) -> tuple[float, bool]:
        """Hidden states (L, D) that predict a continuation of L tokens."""
        targets = torch.tensor(continuation[len(continuation) - len(hidden) :], device=self._device)
        size, total, is_likeliest = max(1, _LOGITS // self.lm.vocab_size), 0.0, True
        for states, expected in zip(hidden.split(size), targets.split(size), strict=True):
            logits = self.lm.head(states).float()
            total += float(logits.log_softmax(-1).gather(1, expected[:, None]).sum())
            is_likeliest = is_likeliest and bool((logits.argmax(-1) == expected).all())
        return total, is_likeliest

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, each in windows of `max_length` tokens."""
        windows = [
            [
                (None, *make_disjoint_window(window))
                for window in get_rolling_token_windows(
                    self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1
                )
            ]
            for request in requests
        ]
        scores = iter(self._loglikelihood_tokens([w for own in windows for w in own], disable_tqdm))
        sums = [sum(next(scores)[0] for _ in own) for own in windows]
        for request, total in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    @torch.inference_mode()
    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The continuation of each text up to its first stop string."""
        hows = [Generation.of(request.args[1]) for request in requests]
        ids = [self.tok_encode(request.args[0]) for request in requests]
        found = [""] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="continuations") as bar:
            for places in batches(hows, list(map(len, ids)), self.batch_size):
                texts_ = self._continuations([ids[place] for place in places], hows[places[0]])
                for place, text in zip(places, texts_, strict=True):
                    found[place] = text
                    self.cache_hook.add_partial("generate_until", requests[place].args, text)
                bar.update(len(places))
        return found

    def _continuations(self, rows: Sequence[list[int]], how: Generation) -> list[str]:
        room = self.max_length - how.max_new_tokens
        if room < 1:
            raise ValueError(
                f"max_length {self.max_length} has no room for {how.max_new_tokens} new tokens: raise it"
            )
        rows = [(row or [self.prefix_token_id])[-room:] for row in rows]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=self._device)
        lengths = torch.tensor([[len(row)] for row in rows], device=self._device)
        mask = torch.arange(width, device=self._device) >= width - lengths  # (B, T)
        state = self.lm.allocate_state(len(rows), width + how.max_new_tokens)
        last = self.lm.prefill(self.lm.embed(ids), state, mask)[:, -1]  # (B, D)
        tokens = decode(
            self.lm,
            last,
            state,
            how.max_new_tokens,
            self.eot_token_id,
            how.sampler,
            self._unknown,
            ahead=not how.stop,
        )
        return texts(tokens, self._text, how.stop)

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
