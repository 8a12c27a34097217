"""llama.cpp on a GGUF export, `--runtime gguf`, through the engine that `cobra export run` uses."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cobra.bench.exports import described, size_of
from cobra.bench.question import TEXT_TOKENS, picture_bytes
from cobra.bench.systems.contexts import state_bytes_of_step
from cobra.bench.timing.case import Case, Stopwatch, dtype_of
from cobra.bench.timing.memory import status
from cobra.bench.timing.sample import Sample
from cobra.export.engine import Floats
from cobra.export.engines.gguf import LANGUAGE_MODEL, PICTURES, GGUFEngine
from cobra.export.gguf.context import Context, open_weights
from cobra.export.gguf.llama import VERSION
from cobra.export.gguf.tensors_in import tensors_in
from cobra.models.vision.pictures import ONE_TILE

# tokens of a made-up context that are read
_READ = 256
# steps before the clock starts
_SETTLING = 2
# of any vocabulary
_IDS = 256


def e2e(folder: str, threads: int, new_tokens: int, flash: bool) -> Case:
    """As ours, with image and vision in one stage; text in random ids."""
    before, place = status("VmRSS"), TemporaryDirectory()
    picture = Path(place.name) / "picture.jpg"
    picture.write_bytes(picture_bytes())
    text, more = np.random.default_rng(0).integers(0, _IDS, (2, TEXT_TOKENS))
    model: Any = described(Path(folder))
    image_tokens = model.num_image_tokens(ONE_TILE)
    room = image_tokens + 2 * TEXT_TOKENS + new_tokens + 1
    engine = GGUFEngine(Path(folder), room, threads, flash_attn_type=int(flash))
    if "pictures" in engine.lacks:
        raise ValueError(f"this build reads no pictures: {engine.lacks['pictures']}")

    def run(count: int = new_tokens) -> Sample:
        engine.reset()
        watch = Stopwatch("cpu")
        (seen,) = engine.read_pictures([picture])
        watch.mark("vision")
        engine.prefill(seen)
        token = _next(engine.prefill(text))
        watch.mark("prefill")
        for _ in range(count - 1):
            token = _next(engine.step(token))
        watch.mark("decode")
        engine.prefill(np.concatenate([[token], more]))
        watch.mark("second")
        return watch.sample("vision", "prefill", "decode")

    def end() -> None:
        engine.close()
        place.cleanup()

    about = {
        "image_tokens": image_tokens,
        "prompt_tokens": image_tokens + TEXT_TOKENS,
        "new_tokens": new_tokens,
        "before_bytes": before,
        **_settings(folder, image_tokens + TEXT_TOKENS + new_tokens // 2),
    }
    return Case(run, rehearsal=lambda: run(2), about=about, end=end)


def decode(folder: str, threads: int, context: int, tokens: int, flash: bool, real: bool = False) -> Case:
    """As ours: greedy steps after a context.

    Of a made-up one 256 tokens are read for real; a transformer's keys and values of these are then repeated
    up to it, in cells and at positions of their own. A state-space model's state is as large after these as
    after any others.
    """
    opened = _opened(folder, context + tokens + _SETTLING + 1, threads, flash)
    if context:
        count = context if real else min(context, _READ)
        opened.read(np.random.default_rng(0).integers(0, _IDS, count))
        opened.repeat(context)

    def run(count: int = tokens) -> Sample:
        opened.rewind(context) if context else opened.reset()
        steps = _steps(opened)
        for _ in range(_SETTLING):
            next(steps)
        watch = Stopwatch("cpu")
        for _ in range(count):
            next(steps)
        watch.mark("decode")
        return watch.sample()

    about = {"tokens": tokens, **_settings(folder, context)}
    return Case(run, rehearsal=lambda: run(2), about=about, end=opened.close)


def prefill(folder: str, threads: int, length: int, flash: bool) -> Case:
    """As ours: token ids to the logits of the last one."""
    opened = _opened(folder, length, threads, flash)
    ids = np.random.default_rng(0).integers(0, opened.vocab_size, length)

    def run() -> Sample:
        opened.reset()
        watch = Stopwatch("cpu")
        opened.read(ids)
        watch.mark("prefill")
        return watch.sample()

    about = {"tokens": length, **_settings(folder, 0)}
    # a prompt has no bound by the bytes of a step
    return Case(run, about={k: v for k, v in about.items() if k != "step_bytes"}, end=opened.close)


def _opened(folder: str, length: int, threads: int, flash: bool) -> Context:
    """A context whose two rows share its cells, as `Context.repeat` needs it."""
    return Context(_weights(folder), length, 2, threads, False, flash_attn_type=int(flash), kv_unified=True)


@cache
def _weights(folder: str) -> Any:
    # a process measures one model, at many lengths
    return open_weights(Path(folder) / LANGUAGE_MODEL)


def _steps(opened: Context) -> Iterator[int]:
    token = 0
    while True:
        token = _next(opened.read(np.array([token])))
        yield token


def _next(logits: Floats) -> int:
    return int(logits.argmax())


def _settings(folder: str, context: int) -> dict[str, Any]:
    """Sizes of the files, and what a step must move: weights, and the state at a context."""
    model: Any = described(Path(folder))
    lm, places = getattr(model, "lm", model), tensors_in(Path(folder) / LANGUAGE_MODEL)
    # of an embedding that is no head a step reads one row
    unread = places["token_embd.weight"].nbytes if "output.weight" in places else 0
    # llama.cpp's cache is in fp16, its recurrent states are in fp32
    moved = state_bytes_of_step(lm, context, dtype_of("float32" if lm.recurrent else "float16"))
    weights = sum(place.nbytes for place in places.values())
    return {
        "model_bytes": size_of(Path(folder), LANGUAGE_MODEL, PICTURES),
        "lm_bytes": size_of(Path(folder), LANGUAGE_MODEL),
        "lm_weights": sum(p.numel() for p in lm.parameters()),
        "step_bytes": weights - unread + moved,
        "state_bytes": moved,
        "constant_state": lm.recurrent,
        "build": f"llama-cpp-python {VERSION}: activations and states in fp32, keys and values in fp16, "
        "inputs of products with quantised weights in 8 bits",
    }


CASES: dict[str, Callable[..., Case]] = {case.__name__: case for case in (e2e, decode, prefill)}
