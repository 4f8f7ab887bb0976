"""Last part of the logged file of the transformers variant."""

import mlflow

from .transformers_model import TransformersChatModel

mlflow.models.set_model(TransformersChatModel())
