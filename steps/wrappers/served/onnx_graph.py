"""A decoder graph of onnxruntime-genai's model builder, run by onnxruntime itself."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from .kv_cache import KVCache, LayerShape
from .limits import GENAI_CONFIG, Limits, damaged, genai_settings

# the graph whose head is computed for the last position alone, over the same weights; written when
# a folder is prepared
LAST_POSITION = "model.last.onnx"
GRAPH_INPUTS = {"input_ids", "attention_mask", "position_ids", "past_key_names", "past_value_names"}
DECODER_KEYS = ("filename", "inputs", "outputs", "num_hidden_layers")
GRAPH_OUTPUTS = {"logits", "present_key_names", "present_value_names"}
# a mask is bound anew whenever its width changes, so it grows by this many tokens at a time
MASK_TOKENS = 64
FLOAT_TENSOR, INTEGER_TENSOR = "tensor(float)", "tensor(int64)"

# read when onnxruntime is imported, which is later
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class UnsupportedGraphError(Exception):
    """A graph whose rows cannot be computed together; says why."""


@dataclass(frozen=True)
class Row:
    """What one row computes.

    Attributes:
        tokens: ids that follow those in its slot.
        length: tokens that its slot holds already.
    """

    tokens: Sequence[int]
    length: int


class OnnxGraph:
    """One decoder with its weights; its keys and values lie in a ``KVCache`` of the caller's.

    ``GroupQueryAttention`` writes new keys and values where the old ones are, and takes the length
    of each row from the sum of its attention mask: rows of different lengths are computed together.

    Args:
        folder: holds genai_config.json and the graph.
        threads: intra-op threads.
        limits: of the model.

    Raises:
        UnsupportedGraphError: it takes or gives something else than such decoders do.
    """

    def __init__(self, folder: Path, threads: int, limits: Limits) -> None:
        model = genai_settings(folder)["model"]
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        decoder = model["decoder"]
        own = folder / LAST_POSITION
        file = own if own.is_file() else folder / str(decoder["filename"])
        try:
            self.session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise damaged(f"onnxruntime cannot load it ({reason})", file.name) from error
        self._border = limits.rope_border
        self.vocabulary = int(model["vocab_size"])
        self._names: dict[str, str] = {**decoder["inputs"], **decoder["outputs"]}
        given = {value.name: value for value in self.session.get_inputs()}
        self._positions = self._names.get("position_ids", "position_ids") in given
        self.layers = self._layers(decoder, given)
        self._require(given)
        shape = next(
            value.shape for value in self.session.get_outputs() if value.name == self._logits
        )
        if isinstance(shape[2], int):  # the graph knows better
            self.vocabulary = shape[2]
        self._last_only = own.is_file() or shape[1] == 1
        self._decoding: dict[tuple[int, int], _Decoding] = {}
        self._bound_to: object = None

    @property
    def _logits(self) -> str:
        return self._names.get("logits", "logits")

    def _layers(self, decoder: Mapping[str, Any], given: Mapping[str, Any]) -> list[LayerShape]:
        layers = []
        for layer in range(int(decoder["num_hidden_layers"])):
            for kind in ("key", "value"):
                past, present = f"past_{kind}_names", f"present_{kind}_names"
                if past not in self._names or present not in self._names:
                    raise damaged(f"model.decoder names no {past}, {present}", GENAI_CONFIG)
                name = self._names[past] % layer
                if name not in given or given[name].type != FLOAT_TENSOR:
                    raise UnsupportedGraphError(f"its input {name} is not a float32 tensor")
                _, heads, _, size = given[name].shape  # (batch, heads, tokens, size)
                if not isinstance(heads, int) or not isinstance(size, int):  # names of dimensions
                    heads, size = decoder["num_key_value_heads"], decoder["head_size"]
                layers.append(LayerShape(name, self._names[present] % layer, heads, size))
        return layers

    def _require(self, given: Mapping[str, Any]) -> None:
        """Refuse inputs and outputs that nothing here would bind."""
        plain = [
            self._names.get(key, key) for key in ("input_ids", "attention_mask", "position_ids")
        ]
        known = {*plain, *(layer.past for layer in self.layers)}
        others = sorted(given.keys() - known)
        wrong = [name for name in plain if name in given and given[name].type != INTEGER_TENSOR]
        made = {value.name: value.type for value in self.session.get_outputs()}
        more = sorted(made.keys() - {self._logits, *(layer.present for layer in self.layers)})
        if others or wrong or more:
            raise UnsupportedGraphError(f"it has {', '.join([*others, *wrong, *more])}")
        if made.get(self._logits) != FLOAT_TENSOR:
            raise UnsupportedGraphError("its logits are not float32")

    def prefill(self, cache: KVCache, slot: int, row: Row, *, long: bool) -> Any:
        """Compute a piece of a prompt.

        Args:
            cache: has room for the row with the piece.
            slot: of the row.
            row: with the piece's tokens.
            long: rotate its keys as those of texts past LongRoPE's border.

        Returns:
            Logits of the token after the piece: (vocabulary,), float32.
        """
        count = len(row.tokens)
        binding = self.session.io_binding()
        ids = np.asarray([row.tokens], np.int64)  # (1, count)
        self._bind_input(binding, "input_ids", ids)
        mask = np.ones((1, self._width(row.length + count, long=long)), np.int64)
        mask[0, row.length + count :] = 0
        self._bind_input(binding, "attention_mask", mask)
        positions = np.arange(row.length, row.length + count, dtype=np.int64)[None]
        if self._positions:
            self._bind_input(binding, "position_ids", positions)
        self._bind_cache(binding, cache, slot, 1)
        logits = np.empty((1, 1 if self._last_only else count, self.vocabulary), np.float32)
        self._bind_output(binding, self._logits, logits)
        self.session.run_with_iobinding(binding)
        return logits[0, -1]

    def decode(self, cache: KVCache, first: int, rows: Sequence[Row], *, long: bool) -> Any:
        """Compute one token more of rows in neighbouring slots.

        Args:
            cache: has room for a token more of each.
            first: slot of the first row.
            rows: with one token each.
            long: rotate their keys as those of texts past LongRoPE's border.

        Returns:
            Logits of the next tokens: (rows, vocabulary), float32; they are overwritten by the next
            call with as many rows.
        """
        if self._bound_to is not cache.version:
            self._decoding.clear()
            self._bound_to = cache.version
        key = (first, len(rows))
        batch = self._decoding.get(key)
        if batch is None:
            batch = self._decoding[key] = self._new_batch(cache, first, len(rows))
        width = self._width(max(row.length for row in rows) + 1, long=long)
        # no wider than the cache, which the graph would take to be as long
        width = max(width, min(-(-width // MASK_TOKENS) * MASK_TOKENS, self._widest(cache, long)))
        if batch.mask is None or batch.mask.shape[1] != width:
            batch.mask = np.zeros((len(rows), width), np.int64)
            self._bind_input(batch.binding, "attention_mask", batch.mask)
        for index, row in enumerate(rows):
            batch.ids[index, 0] = row.tokens[0]
            batch.mask[index, : row.length + 1] = 1
            batch.mask[index, row.length + 1 :] = 0
            batch.positions[index, 0] = row.length
        self.session.run_with_iobinding(batch.binding)
        return batch.logits[:, 0]

    def _new_batch(self, cache: KVCache, first: int, count: int) -> "_Decoding":
        batch = _Decoding(
            self.session.io_binding(),
            np.zeros((count, 1), np.int64),
            np.zeros((count, 1), np.int64),
            np.empty((count, 1, self.vocabulary), np.float32),
        )
        self._bind_input(batch.binding, "input_ids", batch.ids)
        if self._positions:
            self._bind_input(batch.binding, "position_ids", batch.positions)
        self._bind_cache(batch.binding, cache, first, count)
        self._bind_output(batch.binding, self._logits, batch.logits)
        return batch

    def _width(self, tokens: int, *, long: bool) -> int:
        """Width of a mask: the graph takes the factors of its rotary embeddings by it."""
        return max(tokens, self._border + 1) if long and self._border is not None else tokens

    def _widest(self, cache: KVCache, long: bool) -> int:
        short = not long and self._border is not None
        return min(cache.capacity, self._border or 0) if short else cache.capacity

    def _bind_input(self, binding: Any, key: str, values: Any) -> None:
        name = self._names.get(key, key)
        binding.bind_input(name, "cpu", 0, values.dtype.type, values.shape, values.ctypes.data)

    def _bind_output(self, binding: Any, name: str, values: Any) -> None:
        binding.bind_output(name, "cpu", 0, values.dtype.type, values.shape, values.ctypes.data)

    def _bind_cache(self, binding: Any, cache: KVCache, first: int, count: int) -> None:
        """Bind slots as the keys and values of the past and, at once, of the present."""
        for index, layer in enumerate(self.layers):
            shape, address = cache.place(index, first, count)
            binding.bind_input(layer.past, "cpu", 0, np.float32, shape, address)
            binding.bind_output(layer.present, "cpu", 0, np.float32, shape, address)


@dataclass
class _Decoding:
    """What is bound for one number of rows."""

    binding: Any
    ids: Any  # (rows, 1), int64
    positions: Any  # (rows, 1), int64
    logits: Any  # (rows, 1, vocabulary), float32
    mask: Any = None  # (rows, width), int64


def unloadable(provider: str, error: Exception) -> MlflowException:
    """Build the error of a folder that an engine does not load."""
    return MlflowException(
        f"the ONNX model cannot be loaded with execution_provider={provider!r}: {error}; install"
        " the onnxruntime-genai package of that provider, or load with"
        " model_config={'execution_provider': 'cpu'}",
        error_code=INVALID_PARAMETER_VALUE,
    )


def built_for(folder: Path) -> str:
    """Providers that a folder was built for, with commas; nothing for the CPU."""
    decoder = genai_settings(folder)["model"].get("decoder", {})
    options = decoder.get("session_options", {}).get("provider_options", [])
    return ", ".join(sorted({name for option in options for name in option} - {"cpu"}))


def unsupported(folder: Path, limits: Limits) -> str | None:
    """Why a folder's rows cannot be computed together, as far as genai_config.json says; None where
    nothing speaks against it.

    Raises:
        MlflowException: genai_config.json lacks what every decoder has.
    """
    settings = genai_settings(folder)
    model = settings["model"]
    decoder = model.get("decoder", {})
    missing = [key for key in DECODER_KEYS if key not in decoder]
    if missing:
        raise damaged(f"model.decoder has no {', '.join(missing)}", GENAI_CONFIG)
    parts = sorted({"embedding", "vision", "speech", "encoder"} & model.keys())
    if parts or "pipeline" in decoder:
        return f"the model has more parts than a decoder: {', '.join(parts) or 'a pipeline'}"
    if not settings.get("search", {}).get("past_present_share_buffer"):
        return "its keys and values are not written in place (past_present_share_buffer)"
    if decoder.get("sliding_window", {}).get("layers"):
        return "its KV cache is as wide as a sliding window"
    names = {**decoder["inputs"], **decoder["outputs"]}
    others = sorted(names.keys() - GRAPH_INPUTS - GRAPH_OUTPUTS)
    if others:
        return f"its graph has {', '.join(others)}"
    if limits.rope_border is not None and "position_ids" in decoder["inputs"]:
        return "it takes the factors of its rotary embeddings by position_ids"
    return None
