"""Chat templates written for tests in the shapes that families of models have: what they do with
roles, tools and reasoning matters.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from steps.wrappers.served.conversation import Conversations

TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if"
    " add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM_RAISES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}{% for"
    " m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim"
    " }}</turn>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
NO_SYSTEM_DROPS = (
    "{% for m in messages %}{% if m.role == 'user' %}[ASK]{{ m.content }}[/ASK]{% elif m.role =="
    " 'assistant' %}{{ m.content }}</s>{% elif m.role != 'system' %}{{ raise_exception('who?') }}{%"
    " endif %}{% endfor %}"
)
SYSTEM_FOLDED = (
    "{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}{% set rest"
    " = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for m"
    " in rest %}<turn>{{ m.role }}\n{{ (first if loop.first else '') + m.content }}</turn>{%"
    " endfor %}"
)
HERMES = (  # tools in a block of their own, calls between tags, results as the user's
    "{% if tools %}<|system|>{{ messages[0].content if messages[0].role == 'system' else ''"
    " }}<tools>{% for t in tools %}{{ t | tojson }}\n{% endfor %}</tools> Answer with"
    " <tool_call>{...}</tool_call><|end|>{% elif messages[0].role == 'system' %}<|system|>{{"
    " messages[0].content }}<|end|>{% endif %}{% for m in messages %}{% if m.role == 'user'"
    " %}<|user|>{{ m.content }}<|end|>{% elif m.role == 'assistant' %}<|assistant|>{{ m.content"
    ' }}{% for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}",'
    ' "arguments": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}<|end|>{% elif'
    " m.role == 'tool' %}<|user|><tool_response>{{ m.content }}</tool_response><|end|>{% endif %}{%"
    " endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OTHER_VARIABLE = TURNS.replace(
    "{% for m",
    "{% if xml_tools %}<|system|>Tools: {{ xml_tools[:] | string }} <tool_call><|end|>{% endif %}{%"
    " for m",
    1,
)
SYSTEM_KEY = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'system' and 'tools' in"
    " m and m.tools is not none %}{{ '<|tool|>' + m.tools + '<|/tool|>' }}{% endif %}<|end|>{%"
    " endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SYSTEM_KEY_LIST = SYSTEM_KEY.replace(
    "'<|tool|>' + m.tools + '<|/tool|>'", "m.tools[0].function.name ~ (m.tools | tojson)"
)
SYSTEM_NEEDED = TURNS.replace(
    "{{ m.content }}",
    "{{ m.content }}{% if m.role == 'system' and tools %}{{ tools | tojson }}{% endif %}",
    1,
)
NINE = (  # ids of exactly nine characters, tools before the last question, no text beside calls
    "<s>{% for m in messages %}{% if m.role == 'user' %}{% if tools and m == (messages |"
    " selectattr('role', 'equalto', 'user') | list)[-1] %}[AVAILABLE_TOOLS]{{ tools | tojson"
    " }}[/AVAILABLE_TOOLS]{% endif %}[INST]{{ m.content }}[/INST]{% elif m.tool_calls is defined"
    " %}[TOOL_CALLS][{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{"
    ' raise_exception(\'length 9\') }}{% endif %}{{ (c.function | tojson)[:-1] }}, "id": "{{ c.id'
    " }}\"}{{ ', ' if not loop.last }}{% endfor %}]</s>{% elif m.role == 'tool' %}{% if"
    " m.tool_call_id | length != 9 %}{{ raise_exception('length 9') }}{% endif"
    ' %}[TOOL_RESULTS]{"content": {{ m.content }}, "call_id": "{{ m.tool_call_id'
    " }}\"}[/TOOL_RESULTS]{% elif m.role == 'assistant' %}{{ m.content }}</s>{% else %}{{"
    " raise_exception('role') }}{% endif %}{% endfor %}"
)
ONE_CALL = HERMES.replace(
    "{% for c in m.tool_calls or [] %}",
    "{% if m.tool_calls and m.tool_calls | length > 1 %}{{ raise_exception('one call at once') }}{%"
    " endif %}{% for c in m.tool_calls or [] %}",
)
TEXT_ARGUMENTS = HERMES.replace(
    "{{ c.function.arguments | tojson }}", "{{ '' + c.function.arguments }}"
)
PRINTED_ARGUMENTS = HERMES.replace(
    "{{ c.function.arguments | tojson }}", "{{ c.function.arguments }}"
)
SWITCH = TURNS.replace(
    "<|assistant|>{% endif %}",
    "<|assistant|>{% if enable_thinking is defined and enable_thinking is false"
    " %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
SWITCH_OFF_BY_DEFAULT = (
    "{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
    "{% if thinking %}<|system|>Think between <think> and </think> first.<|end|>{% endif %}" + TURNS
)
SWITCH_BY_TAG = TURNS.replace(
    "<|assistant|>{% endif %}",
    "<|assistant|>{{ '<think>' if thinking else '</think>' }}{% endif %}",
)
OPENED = (  # the prompt opens the reasoning; an earlier answer's is cut out
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role"
    " == 'user' %}<\uff5cUser\uff5c>{{ m.content }}{% elif m.role == 'assistant'"
    " %}<\uff5cAssistant\uff5c>{{ m.content.split('</think>')[-1] }}<\uff5cend\uff5c>{% endif %}{%"
    " endfor %}{% if add_generation_prompt %}<\uff5cAssistant\uff5c><think>\n{% endif %}"
)
REASONING_FIELD = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content and loop.last %}[THINK]{{"
    " m.reasoning_content }}[/THINK]{% endif %}{{ m.content }}<|end|>{% endfor %}{% if"
    " add_generation_prompt %}<|assistant|>{% endif %}"
)
OTHER_FIELD = REASONING_FIELD.replace("m.reasoning_content", "m.thinking").replace(
    "THINK]", "think]"
)
CUT_ONLY = TURNS.replace(
    "{{ m.content }}",
    "{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}",
    1,
)
# loops that go on and break off, marks of what was written for training, Python's own methods, the
# date
MACROS = (
    "{% macro turn(role, text) %}<|{{ role.lower() }}|>{{ text.strip().replace('\\r', '')"
    " }}<|end|>{% endmacro %}{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif"
    " %}{% if m.role == 'assistant' %}{% generation %}{{ turn(m.role, m.content) }}{% endgeneration"
    " %}{% else %}{{ turn(m.role, m.content) }}{% endif %}{% endfor %}{{ strftime_now('%Y')[:2]"
    " }}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def checkpoint(
    folder: Path,
    template: str | None = None,
    *,
    special: tuple[str, ...] = ("<s>", "</s>"),
    added: tuple[str, ...] = (),
    **settings: object,
) -> Path:
    """Write what a template needs of a checkpoint.

    Args:
        folder: is filled.
        template: in chat_template.jinja; None writes none.
        special: special tokens of the vocabulary.
        added: tokens that were added and are not special.
        settings: content of tokenizer_config.json.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    known: Mapping[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        **settings,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(known))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def conversations(folder: Path, template: str, **tokens: tuple[str, ...]) -> Conversations:
    """Conversations of a template."""
    return Conversations.of_folder(checkpoint(folder, template, **tokens))


def tool(name: str = "now", **properties: str) -> dict[str, object]:
    """Definition of a function; types of its parameters by name."""
    schema = {
        "type": "object",
        "properties": {
            key: {"type": kind, "description": f"{key} of it"} for key, kind in properties.items()
        },
    }
    return {
        "type": "function",
        "function": {"name": name, "description": f"What {name} does", "parameters": schema},
    }


def call(name: str, arguments: str, identity: str | None = None) -> dict[str, object]:
    """A tool call as clients send it back."""
    made: dict[str, object] = {
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    return made if identity is None else {"id": identity, **made}
