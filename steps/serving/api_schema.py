"""What the OpenAPI document says of requests and answers: the part of OpenAI's API that is served.

The model itself checks a request's fields and names the one at fault; these schemas are for people
and for what generates clients.
"""

from typing import Any

Schema = dict[str, Any]

INTEGER = {"type": ["integer", "null"]}
SAMPLING: Schema = {
    "model": {
        "type": ["string", "null"],
        "description": "<name>, <name>@<alias>, which GET /v1/models lists, or <name>/<version>",
    },
    "max_tokens": {"type": ["integer", "null"], "minimum": 1},
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 16},
    "stop": {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "maxItems": 16},
            {"type": "null"},
        ]
    },
    "seed": INTEGER,
    "frequency_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
    "presence_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
    "logit_bias": {
        "type": ["object", "null"],
        "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,9})$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        "description": "token ids of the model's vocabulary",
    },
    "stream": {"type": ["boolean", "null"]},
    "stream_options": {
        "type": ["object", "null"],
        "properties": {"include_usage": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "user": {"type": "string"},
}
MESSAGE: Schema = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {
            "anyOf": [
                {"type": "string"},
                {"type": "null"},
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["type", "text"],
                        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                    },
                },
            ]
        },
        "name": {"type": "string"},
        "tool_calls": {"type": "array", "items": {"type": "object"}},
        "tool_call_id": {"type": "string"},
    },
    "if": {
        "properties": {"role": {"const": "assistant"}, "tool_calls": {"minItems": 1}},
        "required": ["tool_calls"],
    },
    "else": {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
}
CHAT_REQUEST: Schema = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        "messages": {"type": "array", "items": MESSAGE, "minItems": 1},
        **SAMPLING,
        "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1},
        "logprobs": {"type": ["boolean", "null"]},
        "top_logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": 20},
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {"type": ["string", "object", "null"]},
        "parallel_tool_calls": {"type": ["boolean", "null"]},
        "response_format": {
            "type": ["object", "null"],
            "required": ["type"],
            "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}},
        },
        "chat_template_kwargs": {"type": ["object", "null"]},
    },
}
COMPLETION_REQUEST: Schema = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        },
        **SAMPLING,
    },
}
USAGE: Schema = {
    "type": ["object", "null"],
    "properties": {
        "prompt_tokens": {"type": "integer"},
        "completion_tokens": {"type": "integer"},
        "total_tokens": {"type": "integer"},
    },
}
HEAD: Schema = {
    "id": {"type": "string"},
    "created": {"type": "integer"},
    "model": {"type": "string"},
    "system_fingerprint": {"type": "string"},
}
CHAT_ANSWER: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
        **HEAD,
        "object": {"const": "chat.completion"},
        "choices": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "message", "finish_reason"],
                "properties": {
                    "index": {"type": "integer"},
                    "message": MESSAGE,
                    "finish_reason": {"enum": ["stop", "length", "tool_calls"]},
                },
            },
        },
        "usage": USAGE,
    },
}
COMPLETION_ANSWER: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
        **HEAD,
        "object": {"const": "text_completion"},
        "choices": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "text", "finish_reason"],
                "properties": {
                    "index": {"type": "integer"},
                    "text": {"type": "string"},
                    "finish_reason": {"enum": ["stop", "length"]},
                },
            },
        },
        "usage": USAGE,
    },
}
ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
MODEL: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "version": {"type": "integer"},
        "aliases": {"type": "array", "items": {"type": "string"}},
        "variant": {"type": "string"},
    },
}
MODELS: Schema = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": MODEL,
        },
    },
}
STATE: Schema = {
    "type": "object",
    "required": ["status", "models"],
    "properties": {
        "status": {"enum": ["ready", "degraded", "unavailable"]},
        "models": {"type": "array", "items": {"type": "object"}},
    },
}
REASONS = {
    400: "a field is at fault; `param` names it",
    401: "an API key is missing or wrong",
    404: "no such model, or no such address",
    405: "another method is meant",
    408: "the body took too long to come",
    413: "the body is too large",
    415: "the body is compressed",
    429: "too many requests wait",
    500: "the model failed",
    503: "no version is ready, or the answer took too long",
}


def json_of(schema: Schema) -> Schema:
    """A body of JSON with a schema."""
    return {"content": {"application/json": {"schema": schema}}}


def errors(*statuses: int) -> dict[int | str, Schema]:
    """The answers that are errors, for a route's ``responses``."""
    return {status: {"description": REASONS[status], **json_of(ERROR)} for status in statuses}


def asked(schema: Schema) -> Schema:
    """A route's request body, for ``openapi_extra``."""
    return {"requestBody": {"required": True, **json_of(schema)}}


def answered(schema: Schema, *, streamed: bool = False) -> dict[int | str, Schema]:
    """The answer of status 200, for a route's ``responses``."""
    content = json_of(schema)["content"]
    if streamed:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {200: {"description": "the answer", "content": content}}
