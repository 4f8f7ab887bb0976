"""Logits of a checkpoint and of its conversion, window by window. Imports nothing of ``steps``: the
worker loads this file by its path.

Memory is bounded by one window: window x vocabulary float32 values, whatever the text's length. All
logarithms are natural: KL in nats.
"""

import itertools
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# tokens of a long text that an ONNX folder computes at once, as it does when it is served
PIECE = 256
ROWS = 32  # rows compared at once in float64: 32 x vocabulary x 8 bytes x a few arrays
# nats given to a row that holds infinities or NaN: further than any distribution over 2^64 tokens
# can be
NOT_FINITE = 100.0
# bytes of weights below which a checkpoint is loaded as float32, whatever it is stored in
FLOAT32_LIMIT = 4e9

Logits = NDArray[np.float32]


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Log-probabilities of rows of logits, shape (rows, vocabulary), in float64."""
    wide = logits.astype(np.float64)
    # rows that are not finite stay so, and are seen by the caller
    with np.errstate(invalid="ignore", over="ignore"):
        wide -= wide.max(axis=-1, keepdims=True)
        shifted: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return shifted


def compare(reference: NDArray[Any], other: NDArray[Any], ids: list[int]) -> dict[str, list[float]]:
    """Compare two models' logits on the same tokens.

    Args:
        reference, other: shape (tokens, vocabulary); ``other`` may have padding columns at the end
        of its vocabulary.
        ids: the tokens; row i predicts ids[i + 1].

    Returns:
        One value a row: ``kl`` (KL(reference || other), nats), ``agree`` (1 where the most likely
            tokens are the same), and for all
        rows but the last ``nll_reference`` and ``nll`` (negative log-likelihood of the next token,
        nats).
    """
    vocabulary = min(reference.shape[1], other.shape[1])
    values: dict[str, list[float]] = {"kl": [], "agree": [], "nll_reference": [], "nll": []}
    for start in range(0, len(ids), ROWS):
        stop = min(start + ROWS, len(ids))
        p = log_softmax(reference[start:stop, :vocabulary])
        q = log_softmax(other[start:stop, :vocabulary])
        whole = np.isfinite(q).all(axis=-1)
        q[~whole] = -NOT_FINITE
        kl = np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0)  # below 0 by rounding only
        values["kl"] += np.where(whole, kl, NOT_FINITE).tolist()
        values["agree"] += ((p.argmax(axis=-1) == q.argmax(axis=-1)) & whole).astype(float).tolist()
        following = ids[start + 1 : stop + 1]
        rows = np.arange(len(following))
        values["nll_reference"] += (-p[rows, following]).tolist()
        values["nll"] += (-q[rows, following]).tolist()
    return values


class Meter(Protocol):
    """A model whose logits can be read."""

    vocabulary: int
    bos: list[int]
    context: int  # tokens
    borders: list[int]  # lengths in tokens past which attention or positions change

    def logits(self, ids: list[int], last: int | None = None) -> Logits: ...

    def tokenize(self, text: str) -> list[int]: ...

    def render(self, messages: list[dict[str, str]]) -> list[int] | None: ...

    def continue_greedily(self, ids: list[int], tokens: int) -> list[int]: ...


class FolderTokenizer:
    """The tokenizer and template of a folder, as transformers reads them."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        special = self._tokenizer("a")["input_ids"]
        self.bos = [special[0]] if special and special[0] == self._tokenizer.bos_token_id else []

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def render(self, messages: list[dict[str, str]]) -> list[int] | None:
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError:
            return None
        return self.tokenize(text)


class CheckpointMeter(FolderTokenizer):
    """The checkpoint itself, through transformers and torch: the reference."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        super().__init__(folder)
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        self._torch = torch
        dtype = torch.float32 if size < FLOAT32_LIMIT else "auto"
        # torch's fused attention leaves out soft caps of attention scores without a word (Gemma 2):
        # the plain one has them
        capped = (
            getattr(AutoConfig.from_pretrained(folder), "attn_logit_softcapping", None) is not None
        )
        attention = {"attn_implementation": "eager"} if capped else {}
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **attention).eval()
        config = self._model.config
        self.vocabulary = int(config.vocab_size)
        self.context = int(config.max_position_embeddings)
        self.borders = borders_of(config)

    def logits(self, ids: list[int], last: int | None = None) -> Logits:
        with self._torch.inference_mode():
            kept = {} if last is None else {"logits_to_keep": last}
            output = self._model(self._torch.tensor([ids]), **kept)
            logits: Logits = output.logits[0].float().numpy()
        return logits

    def continue_greedily(self, ids: list[int], tokens: int) -> list[int]:
        prompt = self._torch.tensor([ids])
        with self._torch.inference_mode():
            whole = self._model.generate(
                prompt,
                attention_mask=self._torch.ones_like(prompt),
                max_new_tokens=tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        continuation: list[int] = whole[0, len(ids) :].tolist()
        return continuation


def borders_of(config: Any) -> list[int]:
    """Lengths in tokens, within a transformers configuration's context, past which a wrong
    conversion shows: windows, LongRoPE's border.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    long = rope.get("rope_type") == "longrope"
    original = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    borders = {getattr(config, "sliding_window", None), original if long else None}
    return sorted(
        int(border) for border in borders if border and border < config.max_position_embeddings
    )


class OnnxMeter(FolderTokenizer):
    """An onnxruntime-genai folder."""

    def __init__(self, folder: str) -> None:
        import onnxruntime_genai

        super().__init__(folder)
        self._og = onnxruntime_genai
        config = onnxruntime_genai.Config(folder)
        # 0: all physical cores
        config.overlay(
            json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": 0}}}})
        )
        self._model = onnxruntime_genai.Model(config)
        model = json.loads((Path(folder) / "genai_config.json").read_text(encoding="utf-8"))[
            "model"
        ]
        self.vocabulary = int(model["vocab_size"])
        self.context = int(model["context_length"])
        # a bounded cache is never smaller than its window
        ring = model["decoder"].get("sliding_window", {})
        self._least = min(int(ring["window_size"]), self.context) if ring.get("layers") else 0
        capabilities = Path(folder) / "capabilities.json"
        limits = (
            json.loads(capabilities.read_text(encoding="utf-8")).get("limits", {})
            if capabilities.is_file()
            else {}
        )
        self._rope_border: int | None = limits.get("rope_border")
        self.borders: list[int] = []

    def _generator(self, length: int) -> Any:
        parameters = self._og.GeneratorParams(self._model)
        parameters.set_search_options(
            max_length=min(max(length, self._least), self.context), do_sample=False
        )
        return self._og.Generator(self._model, parameters)

    def logits(self, ids: list[int], last: int | None = None) -> Logits:
        """Logits of every token, or of the last ones, whose predecessors are then computed as they
        are served: in pieces.
        """
        if last is not None:
            generator = self._generator(len(ids) + 1)
            # a text past LongRoPE's border has to be past it from its first piece on
            first = (
                self._rope_border + 1
                if self._rope_border is not None and len(ids) > self._rope_border
                else PIECE
            )
            before = ids[:-last]
            cuts = [0, *range(min(first, len(before)), len(before), PIECE), len(before)]
            for start, stop in itertools.pairwise(cuts):
                if stop > start:
                    generator.append_tokens(np.asarray(before[start:stop], dtype=np.int32))
            return self._rest(generator, ids[-last:])
        generator = self._generator(len(ids) + 1)
        generator.append_tokens(np.asarray(ids, dtype=np.int32))
        logits: Logits = generator.get_output("logits")[0].astype(np.float32, copy=True)
        if len(logits) == len(ids):
            return logits
        # a build with prune_lm_head gives the last row only
        return self._rest(self._generator(len(ids) + 1), ids)

    def _rest(self, generator: Any, ids: list[int]) -> Logits:
        """Logits of tokens that are computed one by one."""
        rows = []
        for token in ids:
            generator.append_tokens(np.asarray([token], dtype=np.int32))
            rows.append(generator.get_output("logits")[0][-1].astype(np.float32, copy=True))
        return np.stack(rows)

    def continue_greedily(self, ids: list[int], tokens: int) -> list[int]:
        generator = self._generator(len(ids) + tokens)
        generator.append_tokens(np.asarray(ids, dtype=np.int32))
        continuation: list[int] = []
        while not generator.is_done() and len(continuation) < tokens:
            generator.generate_next_token()
            continuation.append(int(generator.get_next_tokens()[0]))
        return continuation


def open_meter(kind: str, folder: str) -> Meter:
    """Open a folder of weights; ``kind`` is ``checkpoint`` or ``onnx``."""
    return CheckpointMeter(folder) if kind == "checkpoint" else OnnxMeter(folder)
