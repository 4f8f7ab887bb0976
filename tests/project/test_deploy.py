"""The files in deploy/ and docs/deploy.md: they parse, fit their schemas, name what the code has.

No image is built and no cluster asked: what is compared is the files with each other, with the
schemas of Kubernetes and MLflow, and with the server's own code.
"""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from fastapi.routing import APIRoute

from steps.config.root import Config
from steps.config.serve import ServeConfig
from steps.core import visible
from steps.pipeline.compose import compose_config
from steps.serving import server, worker_process
from tests.conftest import ROOT, Shell

DEPLOY = ROOT / "deploy"
DOCUMENT = ROOT / "docs/deploy.md"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))
KUBERNETES = "1.33"  # the first with user namespaces switched on
UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}
SERVER_BYTES = 500_000_000  # of the server's own process, generously
# of a KServe predictor, beside those of a pod
KSERVE_FIELDS = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout", "model"}

Document = dict[str, Any]


def documents(name: str) -> list[Document]:
    return [one for one in yaml.safe_load_all((DEPLOY / name).read_text()) if one]


def kind(name: str, of: str) -> Document:
    (found,) = [one for one in documents(name) if one["kind"] == of]
    return found


def pods() -> dict[str, Document]:
    """Each pod's specification that starts our image."""
    deployment = kind("kubernetes.yaml", "Deployment")["spec"]["template"]["spec"]
    predictors = [one["spec"]["predictor"] for one in documents("kserve.yaml")]
    (custom,) = [one for one in predictors if "containers" in one]
    return {
        "kubernetes.yaml": deployment,
        "kserve.yaml": {key: value for key, value in custom.items() if key not in KSERVE_FIELDS},
    }


PODS = pods()


def container(pod: Document) -> Document:
    (only,) = pod["containers"]
    return dict(only)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, each with its words."""
    lines = [
        line
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split()[0], line.split(None, 1)[1].strip()) for line in joined.splitlines()]


def instruction(name: str) -> list[str]:
    return [words for said, words in instructions() if said == name]


def started_words() -> list[str]:
    """The words of CMD, which has the form that starts no shell."""
    (command,) = instruction("CMD")
    words: list[str] = json.loads(command)
    return words


def paths() -> set[str]:
    """Paths that the server answers."""
    from steps.serving.app import application
    from steps.serving.completions import Completions
    from steps.serving.keys import ApiKeys
    from steps.serving.status import Status

    never: Any = None  # is only kept
    config = ServeConfig()
    keys = ApiKeys(None, "NO_KEYS_OF_A_TEST")
    completions = Completions(config, never, never, keys)
    status = Status(config, never, never, never, keys, None)
    app = application(completions, status, never, config, never)
    return {route.path for route in app.routes if isinstance(route, APIRoute)}


def metrics() -> str:
    from steps.serving.metrics import Metrics
    from steps.serving.routes import Route, Routes

    shown = Metrics()
    shown.watch(Routes([Route("a", "champion")]))
    return shown.text().decode()


def composed(words: list[str]) -> Config:
    return compose_config([word for word in words if "=" in word])


# --- the image


def test_what_the_image_copies_is_enough_to_start_the_server(shell: Shell, tmp_path: Path) -> None:
    for copied in instruction("COPY"):
        *sources, target = copied.split()
        for source in sources:
            here, there = ROOT / source, tmp_path / target
            assert here.exists(), source
            if here.is_dir():
                shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(here, there)
    python, *words = started_words()
    assert python == "python"
    shown = shell(python, *words, "--cfg", "job", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr[-3000:]
    config = yaml.safe_load(shown.stdout)
    assert config["serve"]["host"] == "0.0.0.0"
    loaded = "import steps.serving.server as s, steps.serving.worker; print(s.__file__)"
    done = shell(python, "-c", loaded, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    shown = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {source for words in instruction("COPY") for source in words.split()[:-1]}
    assert shown == copied


def test_the_image_ends_when_it_is_told_and_is_nobodys_root() -> None:
    assert started_words()[:3] == ["python", "-m", "steps.serve"]
    assert not instruction("ENTRYPOINT")
    user = str(container_user())
    assert instruction("USER") == [user]  # a number, which Kubernetes can tell from root's
    assert f"useradd --uid {user} " in instruction("RUN")[0]
    said = [name for name, _ in instructions()]
    assert said.index("USER") > max(at for at, name in enumerate(said) if name == "RUN")


def container_user() -> int:
    (user,) = {pod["securityContext"]["runAsUser"] for pod in PODS.values()}
    return int(user)


def test_the_image_names_the_servers_port_and_path_of_health() -> None:
    config = composed(started_words())
    assert instruction("EXPOSE") == [str(config.serve.port)]
    (health,) = instruction("HEALTHCHECK")
    words = json.loads(health.partition("CMD")[2])
    asked = re.findall(r"'(/\w+)'", words[-1])
    assert set(asked) <= paths()
    assert f"'127.0.0.1', {config.serve.port}," in words[-1]
    compile(words[-1], "HEALTHCHECK", "exec")


def test_the_store_is_the_volume() -> None:
    assert "SLM_STORE=/data" in instruction("ENV")[0].split()
    assert instruction("VOLUME") == ["/data"]


# --- Kubernetes


@pytest.mark.parametrize("document", documents("kubernetes.yaml"), ids=lambda one: one["kind"])
def test_kubernetes_takes_it(document: Document) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_takes_the_pod(name: str) -> None:
    """Of KServe's service too: its own schema takes whatever Kubernetes does."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "slm"}, "spec": PODS[name]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_the_pods_words_are_a_config(name: str) -> None:
    serving = container(PODS[name])
    assert serving["command"] == started_words()[:3]
    config = composed(serving["args"])
    assert config.serve.host == "0.0.0.0"
    assert server.models_of(config) == {"smollm2-135m-instruct": ["champion"]}


@pytest.mark.parametrize("name", PODS)
def test_the_pods_probes_ask_what_the_server_answers(name: str) -> None:
    serving = container(PODS[name])
    port = composed(serving["args"]).serve.port
    (named,) = serving["ports"]
    assert named["containerPort"] == port
    asked = {
        probe: serving[probe]["httpGet"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert {probe: get["path"] for probe, get in asked.items()} == {
        "startupProbe": "/healthz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/healthz",
    }
    assert {get["path"] for get in asked.values()} <= paths()
    assert {get["port"] for get in asked.values()} <= {port, named["name"]}


@pytest.mark.parametrize("name", PODS)
def test_the_pod_has_time_to_end(name: str) -> None:
    pod = PODS[name]
    before = container(pod)["lifecycle"]["preStop"]["sleep"]["seconds"]
    ends = composed(container(pod)["args"]).serve.shutdown_seconds + server.CUT_SECONDS
    needed = before + ends + worker_process.GRACE_SECONDS
    assert pod["terminationGracePeriodSeconds"] > needed


@pytest.mark.parametrize("name", PODS)
def test_two_workers_fit_into_the_pods_memory(name: str) -> None:
    serving = container(PODS[name])
    limit = composed(serving["args"]).serve.memory_limit_bytes
    assert limit is not None
    text = serving["resources"]["limits"]["memory"]
    assert 2 * limit + SERVER_BYTES <= int(text[:-2]) * UNITS[text[-2:]]


@pytest.mark.parametrize("name", PODS)
def test_the_pod_mounts_what_it_names(name: str) -> None:
    pod = PODS[name]
    serving = container(pod)
    mounted = {mount["name"]: Path(mount["mountPath"]) for mount in serving["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in pod["volumes"]}
    keys = composed(serving["args"]).serve.api_keys_file
    assert keys is not None
    assert Path(keys).parent == mounted["api-keys"]
    # a model must not read them, whether or not the rest of the disk is hidden
    assert any(Path(keys).is_relative_to(folder) for folder in visible.SYSTEM)
    variables = {one["name"]: one["value"] for one in serving["env"]}
    assert Path(variables["SLM_STORE"]) == mounted["store"]
    assert Path(variables["TMPDIR"]) == mounted["tmp"]
    assert not any("subPath" in mount for mount in serving["volumeMounts"])


@pytest.mark.parametrize("name", PODS)
def test_the_pod_gives_workers_what_isolation_needs(name: str) -> None:
    pod = PODS[name]
    serving = container(pod)
    assert composed(serving["args"]).serve.isolation.value == "required"
    assert pod["hostUsers"] is False
    assert pod["automountServiceAccountToken"] is False
    security = serving["securityContext"]
    assert security["procMount"] == "Unmasked"
    assert security["seccompProfile"]["localhostProfile"] in DOCUMENT.read_text()
    assert security["readOnlyRootFilesystem"] is True


def test_the_deployment_waits_longer_than_a_version_may_load() -> None:
    spec = kind("kubernetes.yaml", "Deployment")["spec"]
    assert spec["progressDeadlineSeconds"] > ServeConfig().load_timeout


def test_selectors_name_the_pods() -> None:
    deployment = kind("kubernetes.yaml", "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    service = kind("kubernetes.yaml", "Service")["spec"]
    assert service["selector"] == labels
    budget = kind("kubernetes.yaml", "PodDisruptionBudget")["spec"]
    assert budget["selector"]["matchLabels"] == labels
    scaled = kind("kubernetes.yaml", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", deployment["metadata"]["name"])
    (port,) = container(PODS["kubernetes.yaml"])["ports"]
    assert [one["targetPort"] for one in service["ports"]] == [port["name"]]


def test_the_autoscaler_asks_for_a_metric_that_the_adapter_gives_and_the_server_has() -> None:
    (metric,) = kind("kubernetes.yaml", "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    (values,) = documents("prometheus-adapter.yaml")
    (rule,) = values["rules"]["custom"]
    assert rule["name"]["as"] == name
    series = rule["seriesQuery"].partition("{")[0]
    assert re.fullmatch(rule["name"]["matches"], series)
    assert f"# TYPE {series} gauge" in metrics()


def test_prometheus_is_sent_to_the_metrics() -> None:
    template = kind("kubernetes.yaml", "Deployment")["spec"]["template"]
    notes = template["metadata"]["annotations"]
    assert notes["prometheus.io/path"] in paths()
    port = composed(container(template["spec"])["args"]).serve.port
    assert notes["prometheus.io/port"] == str(port)


# --- KServe, Azure ML, MLflow's gateway


def test_kserve_services() -> None:
    """By hand: no package brings the schema of KServe's own fields without a cluster's client."""
    for one in documents("kserve.yaml"):
        assert (one["apiVersion"], one["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
        predictor = one["spec"]["predictor"]
        assert ("model" in predictor) != ("containers" in predictor)
    custom = PODS["kserve.yaml"]
    assert container(custom)["name"] == "kserve-container"  # the name that KServe looks for
    (model,) = [
        one["spec"]["predictor"]["model"]
        for one in documents("kserve.yaml")
        if "model" in one["spec"]["predictor"]
    ]
    assert set(model) == {"modelFormat", "protocolVersion", "storageUri", "resources"}
    assert (model["modelFormat"], model["protocolVersion"]) == ({"name": "mlflow"}, "v2")


def test_azureml_endpoint_and_deployment() -> None:
    """By hand: the keys of the reference of Azure's CLI, whose schemas are on its site alone."""
    (endpoint,), (deployment,) = (
        documents("azureml-endpoint.yaml"),
        documents("azureml-deployment.yaml"),
    )
    assert endpoint["$schema"].endswith("/managedOnlineEndpoint.schema.json")
    assert deployment["$schema"].endswith("/managedOnlineDeployment.schema.json")
    assert endpoint["auth_mode"] in ("key", "aml_token", "aad_token")
    assert set(deployment) - {"$schema"} == {
        "name", "endpoint_name", "model", "instance_type", "instance_count", "request_settings",
        "liveness_probe", "readiness_probe",
    }  # fmt: skip
    assert deployment["endpoint_name"] == endpoint["name"]
    assert re.fullmatch(r"azureml:[\w.-]+:\d+", deployment["model"])
    assert deployment["request_settings"]["request_timeout_ms"] <= 180_000  # Azure's bound


def test_mlflows_gateway_takes_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.gateway.config import GatewayConfig, OpenAIConfig

    monkeypatch.setenv("SLM_API_KEY", "a key of a test")
    monkeypatch.setenv("MLFLOW_GATEWAY_RESOLVE_API_KEY_FROM_ENV", "true")  # as `gateway start` does
    (values,) = documents("gateway.yaml")
    gateway = GatewayConfig(**values)
    for endpoint in gateway.endpoints:
        config = endpoint.model.config
        assert isinstance(config, OpenAIConfig)
        assert config.openai_api_key == "a key of a test"
        assert config.openai_api_base == f"http://127.0.0.1:{ServeConfig().port}/v1"
        path = endpoint.endpoint_type.value.removeprefix("llm/v1/").replace(
            "chat", "chat/completions"
        )
        assert f"/v1/{path}" in paths()


# --- all of them


def test_every_key_that_is_named_is_in_the_config() -> None:
    known = {f"serve.{name}" for name in asdict(compose_config([]).serve)}
    for path in [*MANIFESTS, DEPLOY / "Dockerfile", DOCUMENT]:
        named = set(re.findall(r"(?<![\w/.])serve\.[a-z_]+", path.read_text()))
        assert named <= known, path.name


def test_the_document_names_every_file_and_no_other() -> None:
    named = set(re.findall(r"deploy/([\w.-]+\w)", DOCUMENT.read_text()))
    assert named == {path.name for path in DEPLOY.iterdir()}


def test_nothing_of_a_registry_or_of_this_machine_is_named() -> None:
    """The examples' hosts are example.org, or stand for what everybody has."""
    for path in [*MANIFESTS, DEPLOY / "Dockerfile", DOCUMENT]:
        hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text()))
        assert {host for host in hosts if not host.endswith("example.org")} <= {
            "127.0.0.1", "slm", "prometheus-server.monitoring.svc", "download.pytorch.org",
            "raw.githubusercontent.com", "azuremlschemas.azureedge.net",
        }  # fmt: skip
