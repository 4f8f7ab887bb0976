"""What is right: transformers' own tokenizer and `generate`, in float32."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.families.table import Family

Messages = Sequence[dict[str, str]]


class Reference:
    """A checkpoint as transformers runs it.

    Args:
        checkpoint: the folder.
        family: its row; the end tokens are its.
    """

    def __init__(self, checkpoint: Path, family: Family) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        # torch's fused attention leaves out Gemma-2's soft caps
        attention = (
            {"attn_implementation": "eager"} if family.config.get("attn_logit_softcapping") else {}
        )
        torch.set_num_threads(1)
        self._torch, self._family = torch, family
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=torch.float32, **attention
        ).eval()
        self.vocabulary = int(self._model.config.vocab_size)

    def prompt_ids(self, text: str) -> list[int]:
        """Ids of a raw prompt, with the BOS that the tokenizer adds, once."""
        ids = list(self.tokenizer(text)["input_ids"])
        return ids[1:] if len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id else ids

    def chat_ids(self, messages: Messages, **switches: Any) -> list[int]:
        """Ids of a rendered conversation."""
        rendered = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, **switches
        )
        return list(self.tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def answer(self, ids: Sequence[int], new_tokens: int) -> tuple[str, str]:
        """Greedy answer to a prompt of these ids: its text, and why it ended."""
        return self.answers([ids], new_tokens)[0]

    def answers(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[tuple[str, str]]:
        """Greedy answers; prompts of one length are computed together, so that none is padded."""
        answers: dict[tuple[int, ...], list[int]] = {}
        for length in {len(prompt) for prompt in prompts}:
            rows = sorted({tuple(prompt) for prompt in prompts if len(prompt) == length})
            for row, answer in zip(rows, self._generated(rows, new_tokens), strict=True):
                answers[row] = answer[length:]
        return [self._ended(answers[tuple(prompt)]) for prompt in prompts]

    def _generated(self, rows: Sequence[tuple[int, ...]], new_tokens: int) -> list[list[int]]:
        batch = self._torch.tensor(rows)
        # plain greedy decoding, whatever generation_config.json says
        plain = {
            "do_sample": False,
            "temperature": None,
            "top_k": None,
            "top_p": None,
            "repetition_penalty": 1.0,
        }
        ends = list(self._family.ends)
        with self._torch.inference_mode():
            out = self._model.generate(
                batch,
                attention_mask=self._torch.ones_like(batch),
                max_new_tokens=new_tokens,
                eos_token_id=ends,
                pad_token_id=ends[0],
                **plain,
            )
        return [list(map(int, row)) for row in out]

    def _ended(self, ids: list[int]) -> tuple[str, str]:
        """Cut an answer after its first end token: what follows is padding."""
        end = next((place for place, token in enumerate(ids) if token in self._family.ends), None)
        return self.decode(ids if end is None else ids[:end]), "length" if end is None else "stop"
