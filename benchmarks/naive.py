"""The wrapper one writes first: a generator for each request, no batching, no cache. The baseline
to beat; models from code.
"""

import json
from typing import Any

import mlflow
from joblib import cpu_count
from mlflow.pyfunc.model import PythonModel


class NaiveWrapper(PythonModel):
    """Answers messages with a chat completion, each on a generator of its own."""

    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load the model."""
        import onnxruntime_genai as og

        self._og = og
        config = og.Config(context.artifacts["onnx-model"])
        # as many as the wrapper has: what is compared is the wrapper
        threads = cpu_count(only_physical_cores=True)
        config.overlay(
            json.dumps(
                {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
            )
        )
        self._model = og.Model(config)
        self._tokenizer = og.Tokenizer(self._model)

    def predict(
        self,
        context: Any,  # noqa: ARG002
        model_input: Any,
        params: dict[str, Any] | None = None,
    ) -> list[Any]:
        """Answer every row, one after another."""
        rows = (
            model_input.to_dict(orient="records")
            if hasattr(model_input, "columns")
            else model_input
        )
        rows = [rows] if isinstance(rows, dict) else rows
        answers = []
        for row in rows:
            settings = {
                **row,
                **{key: value for key, value in (params or {}).items() if value is not None},
            }
            ids = self._tokenizer.encode(
                self._tokenizer.apply_chat_template(json.dumps(list(row["messages"])))
            )
            limit = int(settings.get("max_tokens") or 256)
            parameters = self._og.GeneratorParams(self._model)
            parameters.set_search_options(max_length=len(ids) + limit, do_sample=False)
            generator = self._og.Generator(self._model, parameters)
            generator.append_tokens(ids)
            tokens = []
            while not generator.is_done():
                generator.generate_next_token()
                tokens.append(generator.get_next_tokens()[0])
            message = {"role": "assistant", "content": self._tokenizer.decode(tokens)}
            answers.append({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        return answers


mlflow.models.set_model(NaiveWrapper())
