"""Answers that transformers decodes together: KV caches of different lengths side by side."""

import json
import math
import mmap
from typing import Any

LEAST_CAPACITY = 256  # tokens of room that a batch begins with
# kinds of layers whose cache holds a key and a value for each token, and what masks them
MASKED = {"DynamicLayer": "full_attention", "DynamicSlidingWindowLayer": "sliding_attention"}


def windows_of(model: Any, layers: list[Any]) -> list[int | None] | None:
    """Sliding windows of a model's layers, None where a layer sees everything; None for a model
    whose answers cannot be decoded together.

    Together, the rows of a step have lengths of their own, which reach a model by positions and a
    mask alone. So a model must take both, keep a key for each token in every layer, and must not
    read the length of a text off its cache or its longest row, as ALiBi and dynamic rope do.

    Args:
        model: of transformers.
        layers: of an empty ``DynamicCache`` made of its config.
    """
    import inspect

    config = model.config.get_text_config(decoder=True)
    taken = {"position_ids", "attention_mask", "past_key_values"}
    rope = json.dumps(config.to_dict().get("rope_parameters") or {}, default=str)
    if (
        model.config.is_encoder_decoder
        or getattr(model, "_is_stateful", False)
        or getattr(config, "alibi", False)
        or getattr(config, "num_kv_shared_layers", 0)
        or config._attn_implementation not in ("sdpa", "eager")
        or not taken <= inspect.signature(model.forward).parameters.keys()
        or '"dynamic"' in rope
        or not layers
        or any(type(layer).__name__ not in MASKED for layer in layers)
    ):
        return None
    windows = [layer.sliding_window if layer.is_sliding else None for layer in layers]
    return windows if len({window for window in windows if window}) <= 1 else None


def share_keys(model: Any) -> None:
    """Let heads that share a key read it where it is: transformers copies keys for every head where
    there is a mask, which for a batch takes as long as all the rest.

    With one token a row, the heads of a group are to attention as so many tokens of one head.
    """
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **settings: Any
    ) -> tuple[Any, None]:
        rows, heads, tokens, size = query.shape
        groups = key.shape[1]
        if (
            tokens > 1
            or attention_mask is None
            or heads == groups
            or settings.get("position_bias") is not None
        ):
            return sdpa_attention_forward(  # type: ignore[no-any-return]
                module, query, key, value, attention_mask, **settings
            )
        seen = scaled_dot_product_attention(
            query.view(rows, groups, heads // groups, size),
            key,
            value,
            attn_mask=attention_mask,
            scale=settings.get("scaling"),
        )
        return seen.reshape(rows, 1, heads, value.shape[-1]), None

    # of this file alone: another version of it may be loaded in the same process
    name = f"rows_of_{__name__.replace('.', '_')}"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def turn_head(model: Any) -> None:
    """Let the head of several rows be the product of its weights with them, not of them with its
    weights: the same numbers, for which the BLAS of torch needs a third of the time (eight rows, a
    vocabulary of 49,152, two AVX2 cores).
    """
    from torch.nn import Linear
    from torch.nn.functional import linear

    head = model.get_output_embeddings()
    if type(head) is not Linear or head.weight.device.type != "cpu":
        return

    def forward(hidden: Any) -> Any:
        rows = hidden.reshape(-1, hidden.shape[-1])
        if len(rows) == 1:
            return linear(hidden, head.weight, head.bias)
        scores = (head.weight @ rows.T).T.reshape(*hidden.shape[:-1], -1)
        return scores if head.bias is None else scores + head.bias

    head.forward = forward


class RowsCache:
    """KV caches of the rows of a batch, of which each begins at the first place: a token's place is
    its position. Stands for a ``DynamicCache`` in a model's forward pass.

    The room is that of the longest row for every row, twice at most, as it grows by doubling; on
    the CPU, rows that are not there take no memory. It is given back when the last row leaves.

    Args:
        torch: the module.
        windows: of the layers.
        rows: the most there may be.
    """

    def __init__(self, torch: Any, windows: list[int | None], rows: int) -> None:
        self._torch, self._windows, self._most = torch, windows, rows
        self.lengths: list[int] = []  # tokens, of each row
        self._keys: list[Any] = []  # of each layer: (rows, heads, capacity, head size)
        self._values: list[Any] = []

    def join(self, layers: list[Any], length: int) -> None:
        """Add a row after the others.

        Args:
            layers: of the ``DynamicCache`` that its prompt was computed into; one that slides holds
                the end of it.
            length: tokens of the prompt.
        """
        row = len(self.lengths)
        with self._torch.inference_mode():
            self._reserve(length + 1, layers)
            for layer, keys, values in zip(layers, self._keys, self._values, strict=True):
                begin = length - layer.keys.shape[-2]
                keys[row, :, begin:length] = layer.keys[0]
                values[row, :, begin:length] = layer.values[0]
        self.lengths.append(length)

    def leave(self, row: int) -> None:
        """Take a row out; the last one moves into its place."""
        last = self.lengths.pop()
        if row < len(self.lengths):
            with self._torch.inference_mode():
                for buffer in (*self._keys, *self._values):
                    buffer[row, :, :last] = buffer[len(self.lengths), :, :last]
            self.lengths[row] = last
        if not self.lengths:
            self._keys, self._values = [], []

    def begin_step(self, like: Any) -> tuple[Any, Any]:
        """Make room for one more token of every row, within torch's inference mode.

        Args:
            like: a tensor of the model's type, on its device.

        Returns:
            Positions, (rows, 1), and what each row sees: one mask, (rows, 1, 1, places), to be
            added to scores, or one for each kind of layer where there are two.
        """
        torch, device = self._torch, like.device
        self._reserve(max(self.lengths) + 1)
        self._places = torch.tensor(self.lengths, device=device)
        self._rows = torch.arange(len(self.lengths), device=device)
        self._width = max(self.lengths) + 1
        self.lengths = [length + 1 for length in self.lengths]
        place, last = torch.arange(self._width, device=device)[None, :], self._places[:, None]
        masks = {}
        for window in set(self._windows):
            seen = place <= last
            if window:
                seen &= place > last - window
            hidden = torch.finfo(like.dtype).min
            mask = torch.zeros(seen.shape, dtype=like.dtype, device=device)
            masks[window] = mask.masked_fill_(~seen, hidden)[:, None, None, :]
        if len(masks) == 1:
            return last, next(iter(masks.values()))
        kinds = {
            "sliding_attention" if window else "full_attention": mask
            for window, mask in masks.items()
        }
        return last, kinds

    def update(self, keys: Any, values: Any, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Take one layer's key and value of each row's new token, (rows, heads, 1, head size);
        return all of them.
        """
        rows = len(self.lengths)
        for buffer, new in ((self._keys[layer_idx], keys), (self._values[layer_idx], values)):
            buffer[self._rows, :, self._places] = new[:, :, 0]
        return (
            self._keys[layer_idx][:rows, :, : self._width],
            self._values[layer_idx][:rows, :, : self._width],
        )

    def get_seq_length(self, *_: Any) -> int:
        """Tokens before those of this step, of the longest row."""
        return self._width - 1

    def _reserve(self, length: int, layers: list[Any] | None = None) -> None:
        """Have room for rows of so many tokens; zeros, as what is masked is multiplied by 0."""
        capacity = self._keys[0].shape[-2] if self._keys else 0
        if length <= capacity:
            return
        capacity = max(LEAST_CAPACITY, 2 * capacity)
        while capacity < length:
            capacity *= 2
        rows = len(self.lengths)
        for name in ("keys", "values"):
            old = getattr(self, f"_{name}")
            samples = old or [getattr(layer, name) for layer in layers or []]
            buffers = [
                _zeros(
                    self._torch, sample, (self._most, sample.shape[1], capacity, sample.shape[3])
                )
                for sample in samples
            ]
            for buffer, before in zip(buffers, old, strict=False):
                buffer[:rows, :, : before.shape[-2]] = before[:rows]
            setattr(self, f"_{name}", buffers)


def _zeros(torch: Any, like: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of a tensor's type on its device; on the CPU they take memory as they are written."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    memory = mmap.mmap(-1, math.prod(shape) * like.element_size())
    return torch.frombuffer(memory, dtype=like.dtype).reshape(shape)
