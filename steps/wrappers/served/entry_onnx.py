"""Last part of the logged file of the ONNX variant."""

import mlflow

from .onnx_model import OnnxChatModel

mlflow.models.set_model(OnnxChatModel())
