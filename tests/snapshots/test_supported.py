"""What cannot become both variants is refused in one line, of a folder and of a repository, before
any weight is read or fetched.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steps.config.model import ModelConfig
from steps.snapshots.errors import SnapshotError
from steps.snapshots.fetch import fetch
from steps.snapshots.store import Store
from tests.snapshots.conftest import TEMPLATE, change, configured
from tests.snapshots.hub_server import Hub, Repo, serve

REPO, COMMIT = "someone/small", "a" * 40
Ask = Callable[..., ModelConfig]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub without repositories, which the client is pointed at."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with serve(Hub({})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@pytest.fixture(params=["folder", "hub"])
def ask(request: pytest.FixtureRequest, checkpoint: Path, hub: Hub) -> Iterator[Ask]:
    """A config of the checkpoint folder as it is by then, by path or served by a hub; no weight may
    have been asked for.
    """

    def asked(**overrides: object) -> ModelConfig:
        files = {
            path.relative_to(checkpoint).as_posix(): path
            for path in checkpoint.rglob("*")
            if path.is_file()
        }
        hub.repos[REPO] = Repo(COMMIT, files)
        if request.param == "folder":
            return configured("local", path=str(checkpoint), **overrides)
        return configured("smollm2_135m_hub", repo=REPO, revision=COMMIT, licence=None, **overrides)

    yield asked
    assert [
        path for _, path, _ in hub.asked if path.endswith((".safetensors", ".bin", ".gguf"))
    ] == []


def refused(store: Store, model: ModelConfig) -> str:
    """What is said; it is one line, and the store holds no record and no weights."""
    with pytest.raises(SnapshotError) as caught:
        fetch(model, store)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(("model.path='", f"model.repo='{REPO}': ", "model.allow_patterns="))
    assert list((store.root / "records").iterdir()) == []
    return text.partition("': ")[2]


CONFIGS = {
    "gptq": (
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        "config.json has quantization_config (gptq): its weights",
    ),
    "bitsandbytes": (
        {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}},
        "quantization_config (bitsandbytes)",
    ),
    "fp8": (
        {"quantization_config": {"quant_method": "fp8"}},
        "(fp8): its weights are quantised already",
    ),
    "unnamed": ({"quantization_config": {"bits": 4}}, "(method not named, 4 bits)"),
    "mlx": ({"quantization": {"group_size": 64, "bits": 4}}, "config.json has quantization (MLX)"),
    "own type": (
        {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}},
        "config.json has auto_map: the model is code of its own, and transformers ",
    ),
    "own class": (
        {
            "architectures": ["MyForCausalLM"],
            "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"},
        },
        "config.json has auto_map and architectures[0]='MyForCausalLM', which is code of its own",
    ),
    "unknown type": ({"model_type": "mine"}, "does not know model_type='mine' of config.json"),
    "no type": ({"model_type": None}, "config.json has model_type=None"),
    "encoder": (
        {"model_type": "distilbert", "architectures": ["DistilBertModel"]},
        "model_type='distilbert' of config.json generates no text",
    ),
    "masked": (
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        "is not BertLMHeadModel, which generates text",
    ),
    "encoder-decoder": (
        {
            "model_type": "t5",
            "architectures": ["T5ForConditionalGeneration"],
            "is_encoder_decoder": True,
        },
        "describes an encoder-decoder (model_type='t5'",
    ),
    "reward": (
        {"architectures": ["LlamaForSequenceClassification"]},
        "architectures[0]='LlamaForSequenceClassification' of config.json is not LlamaForCausalLM",
    ),
    "draft": (
        {"architectures": ["LlamaForCausalLMEagle3"]},
        "is not LlamaForCausalLM, which generates text for model_type='llama'",
    ),
    "no architecture": ({"architectures": None}, 'add "architectures": ["LlamaForCausalLM"]'),
    "empty architectures": (
        {"architectures": []},
        "config.json has architectures=[], by which the model builder chooses",
    ),
    "not buildable": (
        {"model_type": "stablelm", "architectures": ["StableLmForCausalLM"]},
        (
            "does not know architectures[0]='StableLmForCausalLM' of config.json; take a model of"
            " another architecture, or name an ONNX folder"
        ),
    ),
    "experts": (
        {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]},
        "does not know architectures[0]='MixtralForCausalLM'",
    ),
    "vision": (
        {"vision_config": {"hidden_size": 8}},
        "holds a multimodal model (vision_config stands in config.json)",
    ),
    "audio": (
        {"audio_config": {"hidden_size": 8}},
        "holds a multimodal model (audio_config stands in config.json)",
    ),
    "conditional": (
        {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]},
        "holds a multimodal model (architectures[0]='Gemma3ForConditionalGeneration')",
    ),
    "no context": (
        {"max_position_embeddings": None},
        "config.json has max_position_embeddings=None: nothing says how long a prompt may be",
    ),
    "context of nothing": (
        {"max_position_embeddings": 0},
        "config.json has max_position_embeddings=0",
    ),
    "context in words": (
        {"max_position_embeddings": "2048"},
        "Validation error for field 'max_position_embeddings': TypeError",
    ),
    "small vocabulary": ({"vocab_size": 100}, "the tokenizer has ids up to 257 ("),
    "refused by transformers": ({"hidden_size": "wide"}, " refuses config.json: "),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_that_cannot_be_used(ask: Ask, checkpoint: Path, store: Store, kind: str) -> None:
    fields, message = CONFIGS[kind]
    change(checkpoint / "config.json", **fields)  # type: ignore[arg-type]
    assert message in refused(store, ask())


def edit_tokenizer(folder: Path, **fields: object) -> None:
    change(folder / "tokenizer_config.json", **fields)


def rename(folder: Path, old: str, new: str) -> None:
    (folder / new).parent.mkdir(exist_ok=True)
    (folder / old).rename(folder / new)


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def adapter(folder: Path) -> None:
    rename(folder, "model.safetensors", "adapter_model.safetensors")
    write(
        folder, "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "meta/base"}
    )


def gguf(folder: Path) -> None:
    rename(folder, "model.safetensors", "model.Q4_K_M.gguf")
    write(folder, "README.md", "---\nbase_model:\n- someone/base\n---\n")


def quantised(folder: Path) -> None:
    write(folder, "quantize_config.json", {"bits": 4})
    write(folder, "README.md", "---\nbase_model: someone/base\n---\n")


def sentencepiece(folder: Path) -> None:
    rename(folder, "tokenizer.json", "tokenizer.model")


def vocabulary_alone(folder: Path) -> None:
    write(folder, "vocab.json", {"a": 0})
    (folder / "tokenizer.json").unlink()


def own_tokenizer(folder: Path) -> None:
    edit_tokenizer(
        folder, auto_map={"AutoTokenizer": ["tokenization_mine.Mine", None]}, tokenizer_class="Mine"
    )
    write(folder, "tokenizer.json", "{}")


def named_templates(folder: Path) -> None:
    edit_tokenizer(folder, chat_template=None)
    write(folder, "additional_chat_templates/tool_use.jinja", TEMPLATE)


def processors_template(folder: Path) -> None:
    edit_tokenizer(folder, chat_template=None)
    write(folder, "chat_template.json", {"chat_template": TEMPLATE})


def template_file(folder: Path) -> None:
    edit_tokenizer(folder, chat_template=None)
    write(folder, "chat_template.jinja", TEMPLATE)


def broken_template(folder: Path) -> None:
    edit_tokenizer(folder, chat_template="{% for %}")


def embeddings(folder: Path) -> None:
    write(folder, "config_sentence_transformers.json", {})


def without_end(folder: Path) -> None:
    edit_tokenizer(folder, eos_token=None)
    change(folder / "config.json", eos_token_id=None)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "adapter": (
        adapter,
        "holds an adapter of meta/base only (adapter_config.json without base weights); merge it"
        " first: load meta/base, ",
    ),
    "gguf": (
        gguf,
        "holds GGUF files only (model.Q4_K_M.gguf), which are not taken from here; take"
        " someone/base, which it was made from",
    ),
    "quantised": (
        quantised,
        "holds quantize_config.json: its weights are quantised already, and would be quantised a"
        " second time; "
        "take the checkpoint before quantisation, someone/base",
    ),
    "pickles": (
        lambda at: rename(at, "model.safetensors", "pytorch_model.bin"),
        "its weights are pickles (pytorch_model.bin)",
    ),
    "mistral": (
        lambda at: rename(at, "model.safetensors", "consolidated.safetensors"),
        "holds Mistral's own layout only (consolidated.",
    ),
    "deeper": (
        lambda at: rename(at, "model.safetensors", "checkpoint-500/model.safetensors"),
        "only in checkpoint-500; name the folder",
    ),
    "embeddings": (embeddings, "holds an embedding model (config_sentence_transformers.json)"),
    "no config": (lambda at: (at / "config.json").unlink(), "holds no config.json"),
    "config of prose": (
        lambda at: write(at, "config.json", "nothing"),
        "config.json is not JSON: JSONDecodeError",
    ),
    "config of a list": (
        lambda at: write(at, "config.json", []),
        "config.json holds a list, expected an object",
    ),
    "generation of prose": (
        lambda at: write(at, "generation_config.json", "{"),
        "generation_config.json is not JSON",
    ),
    "no tokenizer": (
        lambda at: (at / "tokenizer.json").unlink(),
        "holds no tokenizer; save it beside the weights",
    ),
    "sentencepiece": (
        sentencepiece,
        "holds tokenizer.model and no tokenizer.json, and the package that converts it,"
        " sentencepiece",
    ),
    "vocabulary alone": (
        vocabulary_alone,
        "holds vocab.json without merges.txt, and no tokenizer.json",
    ),
    "broken tokenizer": (
        lambda at: write(at, "tokenizer.json", "{}"),
        "its tokenizer does not load: ",
    ),
    "own tokenizer": (
        own_tokenizer,
        "tokenizer_config.json has auto_map: the tokenizer is code of its own (Mine)",
    ),
    "settings of prose": (
        lambda at: write(at, "tokenizer_config.json", "nothing"),
        "tokenizer_config.json is not JSON",
    ),
    "no settings": (lambda at: (at / "tokenizer_config.json").unlink(), "has no chat template"),
    "no template": (
        lambda at: edit_tokenizer(at, chat_template=None),
        "has no chat template, neither in tokenizer_config.json nor as",
    ),
    "named templates": (
        named_templates,
        "has the named chat templates tool_use only; add the default one as chat_template.jinja",
    ),
    "processor's template": (
        processors_template,
        "its chat template stands in chat_template.json alone",
    ),
    "broken template": (
        broken_template,
        "its chat template cannot be rendered: TemplateSyntaxError",
    ),
    "an end by its text": (
        lambda folder: (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}'),
        "generation_config.json has eos_token_id='</s>', which is not a token id or a list of them",
    ),
    "a template without the question": (
        lambda folder: (folder / "chat_template.jinja").write_text("hello"),
        "its chat template leaves out what the user says",
    ),
    "no end": (
        without_end,
        "names no eos_token_id in config.json, generation_config.json or the tokenizer",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_cannot_be_used(ask: Ask, checkpoint: Path, store: Store, kind: str) -> None:
    spoil, message = FILES[kind]
    spoil(checkpoint)
    assert message in refused(store, ask())


def accepted(store: Store, model: ModelConfig, hub: Hub) -> set[str]:
    """Names of the files that are taken."""
    names = {entry.path for entry in fetch(model, store).files}
    hub.asked.clear()  # here the weights are asked for
    return names


GOOD: dict[str, Callable[[Path], object]] = {
    "code of its own that transformers has too": lambda at: change(
        at / "config.json", auto_map={"AutoConfig": "configuration_llama.C"}
    ),
    "an adapter that was merged": lambda at: write(
        at, "adapter_config.json", {"base_model_name_or_path": "meta/base"}
    ),
    "pickles beside": lambda at: write(at, "pytorch_model.bin", "x"),
    "no vision after all": lambda at: change(at / "config.json", vision_config={}),
    "a name in another case": lambda at: change(
        at / "config.json", architectures=["LlamaForCausalLM", "Other"]
    ),
    "a lone file of another name": lambda at: rename(
        at, "model.safetensors", "my-model.safetensors"
    ),
    "a template of its own file": template_file,
}


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_good_is_taken(
    ask: Ask, checkpoint: Path, store: Store, hub: Hub, kind: str
) -> None:
    GOOD[kind](checkpoint)
    names = accepted(store, ask(), hub)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"adapter_config.json", "pytorch_model.bin", "my-model.safetensors"}


def test_a_prebuilt_onnx_folder_needs_no_builder(checkpoint: Path, store: Store, hub: Hub) -> None:
    change(checkpoint / "config.json", model_type="stablelm", architectures=["StableLmForCausalLM"])
    write(checkpoint, "cpu/genai_config.json", {})
    hub.repos["someone/onnx"] = Repo(
        COMMIT, {"cpu/genai_config.json": checkpoint / "cpu/genai_config.json"}
    )
    prebuilt = {"repo": "someone/onnx", "revision": COMMIT, "folder": "cpu"}
    assert fetch(configured("local", path=str(checkpoint), onnx=prebuilt), store).onnx_files


def test_a_special_token_past_the_weights_that_no_prompt_holds_is_warned_about(
    checkpoint: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    extra = {
        "id": 258,
        "content": "<image>",
        "special": True,
        "normalized": False,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
    }
    write(
        checkpoint,
        "tokenizer.json",
        tokenizer | {"added_tokens": [*tokenizer["added_tokens"], extra]},
    )
    with caplog.at_level(logging.WARNING):
        assert fetch(configured("local", path=str(checkpoint)), store).files
    assert "no embedding for <image> (vocab_size=258)" in caplog.text
    edit_tokenizer(checkpoint, chat_template=TEMPLATE + "<image>")
    with pytest.raises(
        SnapshotError,
        match=(
            r"the tokenizer has ids up to 258 \(<image>\), config.json has vocab_size=258; save the"
            r" model again"
        ),
    ):
        fetch(configured("local", path=str(checkpoint)), store)


def test_equivalents_that_transformers_knows_count(checkpoint: Path, store: Store) -> None:
    gpt2 = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "max_position_embeddings": None,
        "n_positions": 1024,
    }
    change(checkpoint / "config.json", **gpt2)
    # and not: no context
    with pytest.raises(SnapshotError, match=r"the model builder of .* does not know"):
        fetch(configured("local", path=str(checkpoint)), store)


def test_files_of_git_that_were_not_downloaded_are_named(checkpoint: Path, store: Store) -> None:
    write(
        checkpoint,
        "model.safetensors",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    )
    with pytest.raises(
        SnapshotError,
        match=(
            r"model='model\.safetensors': is git's pointer to a file that was not downloaded; git"
            r" lfs pull"
        ),
    ):
        fetch(configured("local", path=str(checkpoint)), store)


def test_a_digest_is_nobodys_name(checkpoint: Path, store: Store) -> None:
    for place, name in (
        (f"models--someone--small/snapshots/{COMMIT}", "someone/small"),
        ("d" * 64, "local-model"),
        ("my-model", "my-model"),
    ):
        folder = checkpoint.parent / place
        shutil.copytree(checkpoint, folder)
        assert fetch(configured("local", path=str(folder)), store).name == name
