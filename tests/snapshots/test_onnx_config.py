"""``onnx/``: what the builder would take without a word is refused here."""

import pytest

from steps.config.onnx import ExecutionProvider, OnnxConfig, Precision
from steps.core.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"nonsense": "1"},
            (
                r"onnx\.extra_options\.nonsense='1': expected one of the builder's options"
                r" accuracy_level, algo_config"
            ),
        ),
        (
            {"int4_block_size": "64"},
            (
                r"onnx\.extra_options\.int4_block_size='64': .*; write block_size: the prefix was"
                r" dropped"
            ),
        ),
        ({"hf_token": "hf_secret"}, r"onnx\.extra_options\.hf_token='…'"),
        ({"hf_remote": "true"}, r"onnx\.extra_options\.hf_remote"),
        ({"config_only": "true"}, r"onnx\.extra_options\.config_only"),
    ],
)
def test_unknown_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OnnxConfig(extra_options=options)


def test_quantisation_needs_a_quantised_precision() -> None:
    assert OnnxConfig(
        precision=Precision.int8, extra_options={"block_size": "64"}
    ).extra_options == {"block_size": "64"}
    with pytest.raises(ConfigError, match=r"it quantises, and onnx\.precision=fp32 does not"):
        OnnxConfig(precision=Precision.fp32, extra_options={"block_size": "64"})


@pytest.mark.parametrize(
    ("precision", "provider"),
    [
        (Precision.fp16, ExecutionProvider.cpu),
        (Precision.fp32, ExecutionProvider.dml),
        (Precision.fp16, ExecutionProvider.webgpu),
    ],
)
def test_precisions_that_a_provider_lacks(
    precision: Precision, provider: ExecutionProvider
) -> None:
    with pytest.raises(
        ConfigError,
        match=(
            rf"onnx\.precision='{precision.value}': expected one of .* for"
            rf" onnx\.execution_provider={provider.value}"
        ),
    ):
        OnnxConfig(precision=precision, execution_provider=provider)
