"""What docs/deployment.md tells a service manager to run is what `watch` takes."""

import re
import shlex

import yaml

from steps.config.isolation import Isolation
from steps.config.root import ROOT
from steps.pipeline.arguments import translate
from steps.pipeline.compose import compose_config

TEXT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def takes(words: list[str]) -> None:
    config = compose_config(translate(words).overrides)
    assert config.target == "models:/smollm2-135m-instruct"
    assert config.promotion.canary.isolation is config.evaluate.isolation is Isolation.required


def test_the_systemd_unit() -> None:
    command = re.search(r"^ExecStart=(.*?[^\\])$", TEXT, re.MULTILINE | re.DOTALL)
    assert command
    python, dash_m, module, *words = shlex.split(command.group(1).replace("\\\n", " "))
    assert (python, dash_m, module) == ("/opt/slm-promote/.venv/bin/python", "-m", "steps.watch")
    takes(words)


def test_the_kubernetes_manifest() -> None:
    (manifest,) = (
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    )
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert (
        container["command"] == [".venv/bin/python", "-m", "steps.watch"]
        and container["securityContext"]["readOnlyRootFilesystem"]
    )
    takes(container["args"])
    (port,) = container["ports"]
    assert port["name"] == container["livenessProbe"]["tcpSocket"]["port"]
    assert f"promotion.watch.webhook_port={port['containerPort']}" in container["args"]
