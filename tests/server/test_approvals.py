"""Who acts, who may move which alias and who may approve, on a real server with users, with
PostgreSQL.
"""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from steps.core.errors import ConfigError
from steps.registry import actors, approvals
from steps.registry.actors import Actor
from steps.registry.approvals import UnpreparedError
from steps.registry.approve import Said, decide
from steps.registry.client import PermissionRefusedError, RegistryClient
from steps.registry.permission import RejectedError, WaitingError
from steps.registry.protection import ProtectedAliasError
from steps.registry.result import RefusedError
from steps.registry.statements import APPROVE, REJECT
from steps.registry.table import show_history
from tests.conftest import BIN, ROOT, clean_environment
from tests.registry import commands, scene
from tests.registry.commands import promote
from tests.server.servers import ADMIN, PASSWORD, As, Server, make_user

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]
USERS = {name: f"{name}-passw0rd-1" for name in ("alice", "bob", "mallory")}
NAME = "judged"
ONE, BOB = "promotion.approvals=1", "promotion.approvers=[bob]"


@pytest.fixture(scope="module")
def users(guarded: Server) -> dict[str, str]:
    """Alice promotes, Bob approves, Mallory may read: to user name the password."""
    from mlflow.server import get_app_client

    with pytest.MonkeyPatch.context() as patch:
        As(patch)(ADMIN, PASSWORD)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(guarded.uri)
        mlflow.set_registry_uri(guarded.uri)
        with mlflow.start_run(experiment_id=mlflow.set_experiment("judged").experiment_id):
            slow, fast = scene.log_model("transformers"), scene.log_model("onnx")
            uri = scene.log_report(
                [
                    scene.candidate(slow, "transformers", scene.GOOD),
                    scene.candidate(fast, "onnx", scene.FAST),
                ],
                name=NAME,
            )
        patch.setattr("steps.registry.canary.run", _passes)
        commands.register(uri, scene.config())
        client = get_app_client("basic-auth", guarded.uri)
        for name, password in USERS.items():
            make_user(guarded, name, password)
        for model in (NAME, f"{NAME}.history"):
            client.grant_user_permission("alice", "registered_model", model, "EDIT")
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(before)
    return USERS


def _passes(uri: str, digest: str | None, _: object) -> object:
    from steps.registry import canary

    return canary.Canary(uri, digest or "", True, (), 0, 0.0, "none")


@pytest.fixture
def act(as_user: As, users: dict[str, str]) -> Callable[[str], None]:
    return lambda name: as_user(name, users[name])


def say(decision: str, *overrides: str) -> Said:
    return decide(
        decision, scene.config(f"target=models:/{NAME}/1", "reason='read it'", ONE, *overrides)
    )


def test_server_says_who_acts(
    guarded: Server, act: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials from the environment, from a file and from the address; a name that is only said
    is not believed.
    """
    registry = RegistryClient(10)
    act("alice")
    monkeypatch.setenv("MLFLOW_USER", "bob")
    assert actors.who(registry) == Actor("alice", authenticated=True)
    for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username = alice\nmlflow_tracking_password = {USERS['alice']}\n"
    )
    assert actors.who(registry) == Actor("alice", authenticated=True)
    inside = guarded.uri.replace("://", f"://mallory:{USERS['mallory']}@")
    mlflow.set_registry_uri(inside)
    try:
        assert actors.who(registry) == Actor("mallory", authenticated=True)
    finally:
        mlflow.set_registry_uri(guarded.uri)


@pytest.mark.usefixtures("no_canary")
def test_four_eyes_with_the_permissions_of_the_server(
    guarded: Server, as_user: As, act: Callable[[str], None]
) -> None:
    from mlflow.server import get_app_client

    client, where = mlflow.MlflowClient(), approvals.name_of(NAME)
    # whoever creates the model of approvals is its manager, and could approve in any name
    for name, call in (
        ("alice", lambda: promote(scene.config(f"target=models:/{NAME}/1", ONE))),
        ("alice", lambda: promote(scene.config(f"target=models:/{NAME}/1", ONE, BOB))),
        ("bob", lambda: say(APPROVE)),
    ):
        act(name)
        with pytest.raises(UnpreparedError, match=rf"{where}: .* an administrator runs .*EDIT on"):
            call()
    assert RegistryClient(10).aliases(where) is None
    act("alice")
    client.create_registered_model(where, tags={"slm.kind": "approvals"})
    for policy in ((ONE,), (ONE, BOB), (BOB,)):
        with pytest.raises(UnpreparedError, match="you are its manager, so you could approve in"):
            promote(scene.config(f"target=models:/{NAME}/1", *policy))
    client.delete_registered_model(where)
    as_user(ADMIN, PASSWORD)
    client.create_registered_model(where, tags={"slm.kind": "approvals"})
    get_app_client("basic-auth", guarded.uri).grant_user_permission(
        "bob", "registered_model", where, "EDIT"
    )
    act("alice")
    with pytest.raises(WaitingError, match=r"mlflow run \. -e approve"):
        promote(scene.config(f"target=models:/{NAME}/1", ONE))
    with pytest.raises(RefusedError, match="alice made or proposed the version"):
        say(APPROVE)
    act("mallory")
    with pytest.raises(
        PermissionRefusedError,
        match=rf"models:/{NAME}\.approvals: the tracking server does not let mallory write there",
    ):
        say(APPROVE)
    with pytest.raises(PermissionRefusedError, match="does not let mallory write there"):
        say(REJECT)
    act("bob")
    said = say(REJECT)
    # whoever may write there could have put in that name
    assert not said.decision.authenticated and said.decision.approver == "bob"
    act("alice")
    with pytest.raises(RejectedError, match="rejected for @champion by bob: read it"):
        promote(scene.config(f"target=models:/{NAME}/1", ONE))
    act("bob")
    say(APPROVE)
    assert RegistryClient(10).aliases(NAME) is not None
    with pytest.raises(PermissionRefusedError):  # who approves need not be able to move the alias
        promote(scene.config(f"target=models:/{NAME}/1", ONE))
    act("alice")
    promote(scene.config(f"target=models:/{NAME}/1", ONE))
    assert (RegistryClient(10).aliases(NAME) or {})["champion"] == 1
    act("mallory")
    entries = show_history(scene.config(f"target=models:/{NAME}"), as_json=True)["entries"]
    found = [(entry["kind"], entry["who"], entry["authenticated"]) for entry in entries]
    assert found == [
        ("register", ADMIN, True),
        ("waiting", "alice", True),
        ("reject", "bob", False),
        ("approve", "bob", False),
        ("promote", "alice", True),
    ]


@pytest.mark.usefixtures("no_canary")
def test_protected_alias_is_for_the_users_whom_the_server_confirms(
    act: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    protected = "+promotion.protected.champion=[bob]"
    act("alice")
    monkeypatch.setenv("MLFLOW_USER", "bob")
    with pytest.raises(ProtectedAliasError, match="the tracking server says that you are alice"):
        promote(scene.config(f"target=models:/{NAME}/2", protected))
    done = promote(
        scene.config(
            f"target=models:/{NAME}/2",
            "+promotion.protected.champion=[alice]",
            "alias=champion-edge",
        )
    )
    assert done.moves
    with pytest.raises(ConfigError, match=r"protected='champoin'.*did you mean champion\?"):
        promote(scene.config(f"target=models:/{NAME}/2", "+promotion.protected.champoin=[alice]"))
    assert "does not know" not in caplog.text
    with pytest.raises(ProtectedAliasError):
        promote(scene.config(f"target=models:/{NAME}/2", "+promotion.protected.champion=[alise]"))
    assert "names 'alise' for champion, whom the tracking server does not know" in caplog.text


def test_approve_and_reject_are_commands(
    guarded: Server, users: dict[str, str], act: Callable[[str], None], tmp_path: Path
) -> None:
    """The entry scripts, after the test above, with a user who may edit nothing but the approvals
    and an experiment of his own.
    """
    act("bob")
    environment = clean_environment(
        MLFLOW_TRACKING_URI=guarded.uri,
        MLFLOW_TRACKING_USERNAME="bob",
        MLFLOW_TRACKING_PASSWORD=users["bob"],
        MLFLOW_EXPERIMENT_NAME="bobs",
        PYTHONPATH=str(ROOT),
    )

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(BIN / "python"), "-m", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    target = ("--target", f"models:/{NAME}/2", "--overrides", ONE)
    code, printed = run("steps.approve", *target)
    assert code == 2 and "approve: error: reason=None: expected why you approve it" in printed
    for decision, verb in ((APPROVE, "approved"), (REJECT, "rejected")):
        code, printed = run(f"steps.{decision}", *target, "--reason", "it's fine, or not")
        assert code == 0, printed
        assert f"models:/{NAME}/2 {verb} for @champion by bob (not signed)" in printed
    auth = base64.b64encode(f"bob:{users['bob']}".encode()).decode()
    assert auth not in printed
    found = RegistryClient(10).versions(approvals.name_of(NAME))
    assert "it's fine, or not" in found[-1].description
