"""The checkpoint's own tokenizer.json, read by ``tokenizers``, for both variants."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are not, or not yet, a character
WINDOW = 48  # tokens that are decoded again to find the text of one more
# a token is taken to hold at least as many, for the longest text that may fit a context
LEAST_TOKEN_CHARACTERS = 16
# of vocabularies that spell unknown characters in bytes
BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def _byte_letters() -> dict[str, int]:
    """Bytes by the letters that byte-level vocabularies write them with (GPT-2's
    ``bytes_to_unicode``): itself where that can be seen, else the next letter from 256 on.
    """
    seen = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in seen)
    return {chr(byte): byte for byte in seen} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


BYTE_LETTERS = _byte_letters()

# Read by the tokenizers library. Its batches, of which one text is encoded here at a time, would
# else start threads, and a process that is forked later says so in its log.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class CheckpointTokenizer:
    """Encodes and decodes as transformers does, for any number of threads at once: nothing is
    changed after it is made.

    Texts are encoded as batches: the library lets go of the GIL for those alone, and a long text
    takes a microsecond a character.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``, which is this object's own from now on.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # tokenizer.json keeps whatever its last user cut and filled texts to; transformers starts
        # without
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._byte_ids = (
            _byte_ids(tokenizer)
            if "ByteFallback" in json.dumps(_state(tokenizer.decoder))
            else frozenset()
        )
        added = tokenizer.get_added_tokens_decoder()
        self._added_ids = frozenset(added)
        self._special_ids = frozenset(token for token, entry in added.items() if entry.special)
        self.special = {entry.content: token for token, entry in added.items() if entry.special}
        self.vocabulary = int(tokenizer.get_vocab_size())  # entries, with added tokens
        # characters
        self.longest_token = max(LEAST_TOKEN_CHARACTERS, *map(len, tokenizer.get_vocab()))
        self._unprefixed = _unprefixed_twin(tokenizer)
        plain = tokenizer.encode("a", add_special_tokens=False).ids
        whole = tokenizer.encode("a").ids
        self._beginning: list[int] = (
            whole[: len(whole) - len(plain)] if whole[len(whole) - len(plain) :] == plain else []
        )
        self._lead = plain
        # something follows the text, an end token that no prompt wants
        if not self._beginning and len(whole) > len(plain) and plain:
            self._beginning = whole[: whole.index(plain[0])] if plain[0] in whole else []

    @classmethod
    def of_folder(cls, folder: Path) -> "CheckpointTokenizer":
        """Read a folder's tokenizer.json."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))

    def to_json(self) -> str:
        """Content of tokenizer.json, as it was read."""
        return str(self._tokenizer.to_str())

    @property
    def beginning(self) -> tuple[int, ...]:
        """Ids that the tokenizer puts in front of a text by itself: BOS, or nothing."""
        return tuple(self._beginning)

    def encode(self, text: str) -> list[int]:
        """Encode text; special-token text becomes special tokens, and nothing is put in front."""
        return _ids(self._tokenizer, [text])[0]

    def encode_prompt(self, text: str) -> list[int]:
        """Encode a raw prompt: it begins with what the tokenizer puts in front of a text, once,
        also where the text begins with it.
        """
        ids = self.encode(text)
        return ids if ids[: len(self._beginning)] == self._beginning else [*self._beginning, *ids]

    def encode_segments(self, segments: Sequence[str]) -> list[int]:
        """Encode pieces of one text, so that no token spans two of them.

        A tokenizer that puts a space in front of a text does so for the first piece alone, as it
        does for the whole text.
        """
        if self._unprefixed is None or len(segments) < 2:
            return [token for ids in _ids(self._tokenizer, segments) for token in ids]
        inner = self._tokenizer.encode_batch(list(segments[1:]), add_special_tokens=False)
        cuts = [
            self._first_added(whole, len(segment))
            for whole, segment in zip(inner, segments[1:], strict=True)
        ]
        heads = _ids(
            self._unprefixed,
            [segment[:cut] for segment, cut in zip(segments[1:], cuts, strict=True)],
        )
        tails = _ids(
            self._tokenizer,
            [segment[cut:] for segment, cut in zip(segments[1:], cuts, strict=True)],
        )
        pairs = zip(heads, tails, strict=True)
        return [
            *self.encode(segments[0]),
            *(token for head, tail in pairs for token in (*head, *tail)),
        ]

    def _first_added(self, encoded: Any, length: int) -> int:
        """Where a piece's first added token begins; before it no space is put in front."""
        starts = (
            start
            for token, (start, _) in zip(encoded.ids, encoded.offsets, strict=True)
            if token in self._added_ids
        )
        return min(starts, default=length)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a whole answer, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def shown(self, token: int) -> tuple[str, bytes]:
        """Text of a single token as it stands within a text, special ones too, and its bytes: of a
        part of a character these are not the text's.
        """
        piece = self._tokenizer.id_to_token(token)
        if piece is None:  # past the vocabulary: a row of the embedding that nothing names
            return "", b""
        if token in self._added_ids:
            return piece, piece.encode()
        if token in self._byte_ids:
            raw = bytes([int(piece[3:5], 16)])
            return raw.decode(errors="replace"), raw
        # behind another token, so that a space in front of it stays
        before = self._tokenizer.decode(self._lead, skip_special_tokens=False)
        after = self._tokenizer.decode([*self._lead, token], skip_special_tokens=False)
        text = str(after[len(before) :])
        if REPLACEMENT in text and all(character in BYTE_LETTERS for character in piece):
            return text, bytes(BYTE_LETTERS[character] for character in piece)
        return text, text.encode()

    def decoder(self, keep: frozenset[str] = frozenset()) -> "TextDecoder":
        """Start decoding an answer token by token.

        Args:
            keep: texts of special tokens that are shown all the same.
        """
        kept = {
            token: text for text in keep if (token := self._tokenizer.token_to_id(text)) is not None
        }
        return TextDecoder(self.decode, self._byte_ids, self._special_ids - kept.keys(), kept)


class TextDecoder:
    """Text of one answer as its tokens arrive, the same as decoding all tokens at once.

    Text is given when no later token can change it: not while a character is incomplete, nor within
    a run of byte tokens, which a vocabulary with byte fallback reads together. Only the last tokens
    are decoded again.

    Args:
        decode: text of tokens, without special ones.
        byte_ids: ids of byte tokens, where the vocabulary falls back to bytes.
        skipped: special tokens, which are not shown; the tokens around one are read as if it were
            not there.
        kept: special tokens that are shown, with their texts.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        byte_ids: frozenset[int],
        skipped: frozenset[int],
        kept: dict[int, str],
    ) -> None:
        self._decode, self._byte_ids, self._skipped, self._kept = decode, byte_ids, skipped, kept
        self._tokens: list[int] = []
        # tokens from start on are decoded again; text of those before shown was given
        self._start = self._shown = 0

    def __call__(self, token: int) -> str:
        """Take one more token; return the text that is now certain."""
        if token in self._kept:
            rest = self.finish()
            self._tokens, self._start, self._shown = [], 0, 0
            return rest + self._kept[token]
        if token in self._skipped:
            return ""
        self._tokens.append(token)
        if token in self._byte_ids:
            return ""
        return self._piece(final=False)

    def finish(self) -> str:
        """End the answer: return the text that was held back."""
        return self._piece(final=True)

    def _piece(self, *, final: bool) -> str:
        before = self._decode(self._tokens[self._start : self._shown])
        after = self._decode(self._tokens[self._start :])
        if after.endswith(REPLACEMENT) and not final:
            return ""
        piece = after[len(before) :]
        self._shown = len(self._tokens)
        self._forget()
        return piece

    def _forget(self) -> None:
        """Move the start forward, to where the tokens kept still hold visible text, so that what
        follows is not read as a beginning.
        """
        if self._shown - self._start < 2 * WINDOW:
            return
        start = self._shown - WINDOW
        while start > self._start and self._tokens[start] in self._byte_ids:
            start -= 1
        if len(self._decode(self._tokens[start : self._shown]).strip().strip(REPLACEMENT)) > 1:
            self._start = start


def _byte_ids(tokenizer: Any) -> frozenset[int]:
    ids = (tokenizer.token_to_id(text) for text in BYTE_TOKENS)
    return frozenset(token for token in ids if token is not None)


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, with nothing put in front of any."""
    return [
        list(encoded.ids)
        for encoded in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ]


def _state(component: Any) -> dict[str, Any]:
    """A component of a tokenizer as tokenizer.json has it."""
    return dict(json.loads(component.__getstate__())) if component is not None else {}


def _parts(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from state.get("normalizers") or state.get("pretokenizers") or ([state] if state else [])


def _unprefixed_twin(tokenizer: Any) -> Any | None:
    """A copy of a tokenizer without the space in front of every text; None where it has none."""
    from tokenizers import Tokenizer

    normalizer, pre_tokenizer = _state(tokenizer.normalizer), _state(tokenizer.pre_tokenizer)
    prepends = any(part["type"] == "Prepend" for part in _parts(normalizer))
    metaspace = any(
        part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never"
        for part in _parts(pre_tokenizer)
    )
    spaced = any(
        part["type"] == "ByteLevel" and part.get("add_prefix_space")
        for part in _parts(pre_tokenizer)
    )
    if not (prepends or metaspace or spaced):
        return None
    state = json.loads(tokenizer.to_str())
    if normalizer:
        rest = [part for part in _parts(normalizer) if part["type"] != "Prepend"]
        state["normalizer"] = {"type": "Sequence", "normalizers": rest}
    if pre_tokenizer:
        state["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [_unprefixed_part(part) for part in _parts(pre_tokenizer)],
        }
    return Tokenizer.from_str(json.dumps(state))


def _unprefixed_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    return {**part, "add_prefix_space": False} if part["type"] == "ByteLevel" else part
