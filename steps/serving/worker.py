"""The process that serves one version: it loads the model as users do and streams its answers.

Started as a plain file by ``worker_process.py`` with ``python -P worker.py <socket fd>``, in an
empty folder and without the project on the path; it imports nothing of ``steps``. One JSON value a
line goes each way over the socket:

    in   {"load": "<folder>", "model_config": {…}}    first
         {"id": 7, "row": {…}}                        a row of the chat contract, to be streamed
         {"id": 7, "cancel": true}                    nobody reads it any more
    out  {"ready": {"capacity": 8, …}}, or {"failed": "…"}
         {"id": 7, "chunk": …}                        as ``predict_stream`` yields it
         {"id": 7, "end": true}
         {"id": 7, "error": "…", "status": 400}
         {"alive": true}                              now and then, whatever the model does
"""

import json
import os
import socket
import sys
import threading
import time
import traceback
from typing import Any


class Worker:
    """One loaded model and the requests that it answers, each in a thread of its own.

    Args:
        connection: to the server.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writing = threading.Lock()
        self._cancelled: dict[int, threading.Event] = {}  # of the requests that are answered
        self._model: Any = None

    def run(self) -> None:
        """Load what the first line names, then answer until the server hangs up."""
        with self._connection.makefile("rb") as lines:
            order = json.loads(next(lines))
            try:
                self._send({"ready": self._load(order["load"], order["model_config"])})
            except Exception as error:  # noqa: BLE001 - whatever the model raises is told to the server
                traceback.print_exc()
                self._send({"failed": f"{type(error).__name__}: {error}"})
                return
            threading.Thread(target=self._beat, daemon=True).start()
            for line in lines:
                said = json.loads(line)
                number = int(said["id"])
                if said.get("cancel"):
                    if number in self._cancelled:
                        self._cancelled[number].set()
                    continue
                self._cancelled[number] = threading.Event()
                threading.Thread(
                    target=self._answer, args=(number, said["row"]), daemon=True
                ).start()

    def _load(self, folder: str, model_config: dict[str, Any]) -> dict[str, Any]:
        import mlflow

        mlflow.tracing.disable()
        loaded = mlflow.pyfunc.load_model(folder, model_config=model_config)
        self._model = loaded.unwrap_python_model()
        settings = getattr(self._model, "settings", None)
        if settings is None or not hasattr(self._model, "predict_stream"):
            raise TypeError(
                "it is not a model of this project: log it with log_transformers or"
                " log_onnx_wrapper"
            )
        return {
            "capacity": min(int(settings.max_batch_size), int(settings.max_queue)),
            "max_new_tokens": int(settings.max_new_tokens),
        }

    def _answer(self, number: int, row: dict[str, Any]) -> None:
        cancelled = self._cancelled[number]
        try:
            chunks = self._stream(cancelled, row)
            try:
                for chunk in chunks:
                    if cancelled.is_set():
                        break
                    self._send({"id": number, "chunk": chunk})
            finally:
                chunks.close()  # cancels what was not generated yet
            self._send({"id": number, "end": True})
        except Exception as error:  # noqa: BLE001 - whatever the model raises is told to the server
            status = getattr(error, "get_http_status_code", None)
            code = int(status()) if callable(status) else 500
            if code >= 500 and not cancelled.is_set():
                traceback.print_exc()
            self._send(
                {"id": number, "error": getattr(error, "message", str(error)), "status": code}
            )
        finally:
            self._cancelled.pop(number, None)

    def _stream(self, cancelled: threading.Event, row: dict[str, Any]) -> Any:
        """Chunks of an answer. A version logged before models had ``stream_until`` computes the
        whole prompt of an answer that nobody waits for any more.
        """
        if hasattr(self._model, "stream_until"):
            return self._model.stream_until(cancelled, [row])
        return self._model.predict_stream(None, [row])

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            self._send({"alive": True})

    def _send(self, value: dict[str, Any]) -> None:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._writing:
            self._connection.sendall(line)


# the server's loop goes before the threads that compute, where they share the processors
NICE = 5
BEAT_SECONDS = 5.0  # between two words that the process lives


def end_with(parent: int) -> None:
    """End this process when the server is gone, whatever the model is doing."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    os.nice(NICE)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    Worker(socket.socket(fileno=int(sys.argv[1]))).run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a model's slow shutdown would only hold its memory


if __name__ == "__main__":
    main()
