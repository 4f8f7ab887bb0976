"""openvino-genai, run by the peers' Python: the times of one request at a time.

The first line on standard output says that it is loaded; then each line of standard input asks one
request. The end of standard input ends the process.

.venv-peers/bin/python benchmarks/peer_openvino.py <file.gguf> <threads>
"""

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import openvino_genai


def load(gguf: str, threads: int) -> Any:
    """The pipeline as it comes, but without its prefix cache."""
    schedule = openvino_genai.SchedulerConfig()
    schedule.enable_prefix_caching = False
    schedule.max_num_batched_tokens = 8192  # a prompt whole, as the pipeline does by itself
    return openvino_genai.LLMPipeline(
        gguf, "CPU", scheduler_config=schedule, INFERENCE_NUM_THREADS=threads
    )


def times(pipeline: Any, content: str, limit: int) -> dict[str, float]:
    """Seconds to the first text and between tokens."""
    moments: list[float] = []

    def read(text: str) -> Any:
        if text:
            moments.append(time.perf_counter())
        return openvino_genai.StreamingStatus.RUNNING

    config = pipeline.get_generation_config()
    config.do_sample = False
    config.max_new_tokens = limit
    started = time.perf_counter()
    history = openvino_genai.ChatHistory([{"role": "user", "content": content}])
    metrics = pipeline.generate(history, config, read).perf_metrics
    tokens = metrics.get_num_generated_tokens()
    return {
        "first": moments[0] - started,
        "between": (moments[-1] - moments[0]) / max(tokens - 1, 1),
        "tokens": tokens,
        "prompt_tokens": metrics.get_num_input_tokens(),
    }


def main(gguf: str, threads: str) -> None:
    """Answer until standard input ends."""
    pipeline = load(gguf, int(threads))
    about = {"openvino-genai": version("openvino-genai")}
    print(json.dumps({"url": "", "about": about}), flush=True)
    for line in sys.stdin:
        print(json.dumps(times(pipeline, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
