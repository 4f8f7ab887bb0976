"""The rows of what ``predict`` was given, each of them a request."""

from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from .invalid_request import behind_server, characters_in, invalid_request, plain, require_count
from .request import KEYS, Defaults, Request, request_of
from .request_messages import MESSAGE_KEYS

# of one request to a scoring server; in a batch job there is no limit
MAX_SERVED_ROWS = 1_000
MAX_SERVED_CHARACTERS = 8_000_000  # of all texts in it


def rows_of(data: Any) -> list[dict[str, Any]]:
    """Split what ``predict`` was given into rows.

    A row is a mapping. A string stands for ``{"prompt": string}``; a mapping whose ``prompt`` is a
    list stands for a row each: of a list as long as that, each row gets its own item, except where
    the list itself is one value (``stop``, ``tools``), which every row gets.

    Raises:
        MlflowException: ``data`` is none of these.
    """
    # a pandas frame, told by shape so that pandas need not be imported
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        unnamed = len(data.columns) == 1 and data.columns[0] not in KEYS
        data = list(data.iloc[:, 0]) if unnamed else data.to_dict(orient="records")
    elif hasattr(data, "to_list"):
        data = data.to_list()
    data = plain(data)
    if isinstance(data, str):
        return [{"prompt": data}]
    if isinstance(data, Mapping):
        columns = dict(data)
        prompts = columns.get("prompt")
        if isinstance(prompts, list):
            return [
                {
                    key: value[row] if _dealt(key, value, len(prompts)) else value
                    for key, value in columns.items()
                }
                for row in range(len(prompts))
            ]
        return [columns]
    if isinstance(data, list):
        if data and all(
            isinstance(row, Mapping) and set(row) <= MESSAGE_KEYS and "role" in row for row in data
        ):
            return [{"messages": data}]
        rows: list[dict[str, Any]] = []
        for index, row in enumerate(data):
            if not isinstance(row, str | Mapping):
                raise invalid_request(
                    f"row {index}", row, "a mapping with `messages` or `prompt`, or a string"
                )
            rows.append({"prompt": row} if isinstance(row, str) else dict(row))
        return rows
    raise invalid_request(
        "data",
        data,
        "a frame, a mapping or a list of mappings with `messages` or `prompt`, or a string",
    )


def _dealt(key: str, value: Any, rows: int) -> bool:
    """Whether a list holds a value for each row; ``["a", "b"]`` under ``stop``, or definitions
    under ``tools``, are one value.
    """
    if not isinstance(value, list) or len(value) != rows:
        return False
    one = {"stop": str, "tools": Mapping, "modalities": str}.get(key)
    return one is None or not all(isinstance(item, one) for item in value)


def requests_of(data: Any, params: Mapping[str, Any] | None, defaults: Defaults) -> list[Request]:
    """Check every row before any is answered; an error names the row's index.

    Raises:
        MlflowException: as ``request_of``; behind a scoring server also more rows or characters
            than one request may have.
    """
    requests: list[Request] = []
    rows = rows_of(data)
    if behind_server():
        require_count("rows", rows, MAX_SERVED_ROWS, "rows")
        characters = sum(characters_in(row) for row in rows)
        if characters > MAX_SERVED_CHARACTERS:
            raise invalid_request(
                "rows",
                f"{characters} characters",
                f"at most {MAX_SERVED_CHARACTERS} in one request",
            )
    for index, row in enumerate(rows):
        try:
            requests.append(request_of(row, params, defaults))
        except MlflowException as error:
            if len(rows) == 1:
                raise
            raise MlflowException(
                f"row {index}: {error.message}", error_code=INVALID_PARAMETER_VALUE
            ) from error
    return requests
