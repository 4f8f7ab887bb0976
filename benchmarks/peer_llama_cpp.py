"""llama.cpp, run by the peers' Python: its server on a free port of loopback, and the times of one
request at a time.

The first line on standard output says where the server listens; then each line of standard input
asks one request. The end of standard input ends the process.

.venv-peers/bin/python benchmarks/peer_llama_cpp.py <file.gguf> <threads>
"""

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import xllamacpp

SLOTS = 8  # as many as the wrapper's max_batch_size
SLOT_CONTEXT = 1024  # tokens a slot holds: the longest prompt here and its answer take 500


def serve(gguf: str, threads: int) -> Any:
    """A server with continuous batching (llama.cpp's default) in eight slots."""
    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_CONTEXT
    params.n_threads_http = 4 * SLOTS  # a connection that is kept alive holds one
    params.verbosity = 1
    return xllamacpp.Server(params)


def times(server: Any, content: str, limit: int) -> dict[str, float]:
    """Seconds to the first text and between tokens, without the prompt cache."""
    moments: list[float] = []
    usage: dict[str, int] = {}

    def read(answered: Any) -> bool:
        for chunk in answered if isinstance(answered, list) else [answered]:
            if "error" in chunk or "choices" not in chunk:
                raise RuntimeError(f"llama.cpp answered {chunk}")
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                moments.append(time.perf_counter())
            usage.update(chunk.get("usage") or {})
        return False  # do not stop

    request = {"messages": [{"role": "user", "content": content}], "max_tokens": limit}
    request |= {"temperature": 0.0, "cache_prompt": False}
    request |= {"stream": True, "stream_options": {"include_usage": True}}
    started = time.perf_counter()
    server.handle_chat_completions(request, read)
    tokens = usage["completion_tokens"]
    between = (moments[-1] - moments[0]) / max(tokens - 1, 1)
    return {
        "first": moments[0] - started,
        "between": between,
        "tokens": tokens,
        "prompt_tokens": usage["prompt_tokens"],
    }


def main(gguf: str, threads: str) -> None:
    """Serve until standard input ends."""
    server = serve(gguf, int(threads))
    about = {"xllamacpp": version("xllamacpp"), "built_for": xllamacpp.get_system_info()}
    print(json.dumps({"url": server.listening_address, "about": about}), flush=True)
    for line in sys.stdin:
        print(json.dumps(times(server, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
