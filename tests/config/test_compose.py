"""Every config of every group composes, and every mistake ends in one line that names it."""

import re

import pytest

from steps.config.root import CONF
from steps.core.errors import ConfigError
from steps.pipeline.compose import compose_config, compose_jobs

GROUPS = ("model", "onnx", "evaluate", "promotion", "serve", "monitor")
NODES = [
    f"{group}={path.stem}"
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if (group, path.stem) not in (("model", "local"), ("model", "hub"))  # take a key of one's own
]


@pytest.mark.parametrize("choice", NODES)
def test_every_node_composes(choice: str) -> None:
    group = choice.split("=")[0]
    assert getattr(compose_config([choice]), group) is not None


@pytest.mark.parametrize(
    ("overrides", "precision"),
    [
        ([], "int8"),
        (["onnx=fp32_cpu"], "fp32"),
        (["onnx=int4_cpu", "model=smollm2_135m"], "int4"),
        (["model=tiny_phi3"], "int4"),
    ],
)
def test_a_model_may_choose_its_onnx_build_and_the_user_has_the_last_word(
    overrides: list[str], precision: str
) -> None:
    assert compose_config(overrides).onnx.precision.value == precision


@pytest.mark.parametrize(
    "path", sorted(CONF.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_file_opens_with_the_command_that_uses_it(path: object) -> None:
    first = open(str(path), encoding="utf-8").readline()  # noqa: SIM115, PTH123
    assert re.match(r"# (mlflow run|make) ", first), first


def test_the_model_it_was_conceived_for() -> None:
    model = compose_config(["model=phi3_mini_4k"]).model
    assert model.repo == "microsoft/Phi-3-mini-4k-instruct"
    assert model.revision == "0a67737cc96d2554230f90338b163bc6380a2a85"
    assert model.onnx is not None
    assert model.onnx.folder == "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4"
    assert model.artifact_key == "phi3-mini-onnx"
    assert model.trust_remote_code is False


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=nope"], r"model='nope': expected one of hub, local, phi3_mini_4k"),
        (
            ["evaluate.sed=1"],
            r"evaluate.sed='1': expected a key of the config; did you mean evaluate.seed",
        ),
        (["nonsense=1"], r"nonsense='1': expected a key of the config; known keys: model, onnx"),
        (["evaluate.seed=x"], r"evaluate.seed='x': expected an integer"),
        (["onnx.prebuilt=maybe"], r"onnx.prebuilt='maybe': expected true or false"),
        (["onnx.precision=int3"], r"onnx.precision='int3': expected one of int4"),
        (
            ["evaluate.max_new_tokens=0"],
            r"evaluate.max_new_tokens=0: expected an integer of at least 1",
        ),
        (
            ["evaluate.concurrent_items=65"],
            r"evaluate.concurrent_items=65: expected an integer from 1 to 64",
        ),
        (
            ["generation.temperature=3"],
            r"generation.temperature=3.0: expected a number from 0 to 2",
        ),
        (
            ["onnx.serving.max_queue=0"],
            r"onnx.serving.max_queue=0: expected an integer of at least 1",
        ),
        (
            ["model=local"],
            r"model.path=None: expected a value, as model.source is 'folder'; pass model.path=",
        ),
        (
            ["model.registered_name=My/One"],
            r"model.registered_name='My/One': expected letters and digits",
        ),
        (
            ["model.registered_name=???"],
            r"model.registered_name='\?\?\?': expected a value, as it is mandatory",
        ),
        (["model.sha256=abc"], r"model.sha256='abc': expected 64 lower-case"),
        (
            ["model.allow_patterns=['*.bin']"],
            r"model.allow_patterns=\['\*.bin'\]: expected no pickled weights",
        ),
        (["onnx=int4_cpu,fp32_cpu"], r"onnx='int4_cpu,fp32_cpu': expected one value; add -m"),
        (
            ["model.trust_remote_code=true"],
            r"model.trust_remote_code=True: expected false: weights that need code of their own",
        ),
        (["model.seed=-1"], r"model.seed=-1: expected an integer of at least 0"),
        (
            ["model.allow_patterns=['*.h5']"],
            r"model.allow_patterns=\['\*.h5'\]: expected no pickled weights",
        ),
        (
            ["evaluate.fidelity.continuation_tokens=0"],
            r"evaluate.fidelity.continuation_tokens=0: expected an integer of at least 1",
        ),
        (
            ["model.onnx.repo=a/b"],
            (
                r"model.onnx.repo='a/b': expected a model that names a prebuilt folder; write"
                r" model.onnx into"
            ),
        ),
        (
            ["model.onnx={folder: x}"],
            r"model.onnx='{folder: x}': expected a model that names a prebuilt folder",
        ),
        (["model=null"], r"model='null': expected one of hub, local, phi3_mini_4k"),
        (["serve.api_keys_file=''"], r"serve.api_keys_file='': expected a file with an API key"),
        (["serve.host=''"], r"serve.host='': expected an address, such as 127.0.0.1"),
        (["promotion=5"], r"promotion='5': expected one of balanced, edge, quality"),
        (["promotion="], r"promotion='': expected one of balanced, edge, quality"),
        (["promotion=quality.yaml"], r"without its ending: promotion=quality$"),
        (["promotion=/p/mine.yaml"], r"copy the file to conf/promotion/, and pass promotion=mine$"),
        (["+evaluate=smoke"], r"evaluate='smoke': expected an override without \+.*; write eval"),
        (["+evaluate.seed=4"], r"evaluate.seed='4': expected an override without \+"),
        (["~evaluate.seed"], r"overrides='~evaluate.seed': expected a key that the config lacks"),
        (["~promotion"], r"overrides='~promotion': expected a key that the config lacks"),
        (
            ["+serve.split={champion: x}"],
            r"serve\.split\.champion='x': expected an integer",
        ),
        (["promotion.approvals=-1"], r"promotion.approvals=-1: expected an integer of at least 0"),
        (
            ["promotion.approvals=2", "promotion.approvers=[bob,bob]"],
            r"promotion.approvals=2: expected at most 1, as promotion.approvers",
        ),
        (
            ["promotion.approvers=['']"],
            r"promotion.approvers=\[''\]: expected user names and PEM files",
        ),
        (
            ["+promotion.protected.v2=[bob]"],
            r"promotion.protected='v2': expected aliases in lower-case letters",
        ),
        (
            ["+promotion.protected.champion=[]"],
            (
                r"promotion.protected.champion=\[\]: expected user names of the tracking server, at"
                r" least one"
            ),
        ),
        (["hydra/launcher=joblib"], r"hydra/launcher='joblib': expected one of basic"),
        (["onnx=[}"], r"overrides='onnx=\[}': expected key=value in Hydra's override grammar"),
        (["~model.nothing"], r"model.nothing=None: expected a key of the config"),
    ],
)
def test_a_mistake_is_one_line_with_field_value_and_expectation(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        compose_config(overrides)
    assert "\n" not in str(caught.value)


def test_every_job_of_a_multirun_is_composed_before_the_first_runs() -> None:
    jobs = compose_jobs(["model=tiny_phi3", "onnx=int4_cpu,fp32_cpu", "evaluate.seed=1,2"])
    assert [(job.onnx.precision.value, job.evaluate.seed) for job in jobs] == [
        ("int4", 1),
        ("int4", 2),
        ("fp32", 1),
        ("fp32", 2),
    ]
    assert len(compose_jobs(["onnx=glob(int8*)"])) == 2
    with pytest.raises(ConfigError, match=r"onnx='nope': expected one of"):
        compose_jobs(["onnx=int4_cpu,nope"])


@pytest.mark.parametrize("days", ["inf", "nan", "1e9", "0"])
def test_the_age_of_evidence_has_bounds(days: str) -> None:
    with pytest.raises(ConfigError, match=r"promotion\.max_evidence_age_days=.*at most 36500"):
        compose_config([f"promotion.max_evidence_age_days={days}"])


def test_two_approvers_keys_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"promotion\.approvers=.*'key' is how the history calls"):
        compose_config(
            ["promotion.approvals=2", "promotion.approvers=[rosa/key.pub.pem,omar/key.pub.pem]"]
        )


@pytest.mark.parametrize(
    "key", ["promotion.protected.champion", "onnx.extra_options.int4_block_size"]
)
def test_a_key_of_ones_own_is_added_with_a_plus(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"write \+{re.escape(key)}="):
        compose_config([f"{key}=[rosa]"])
