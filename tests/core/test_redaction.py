"""Secrets and the home folder stay out of what is written on a run."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from steps.core import visible
from steps.core.redaction import (
    redact,
    redact_answer,
    redact_credentials,
    redact_leaves,
    redact_override,
)


def test_secrets_and_home_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    text = (
        "token hf_0123456789abcdef, https://ada:correct horse@x, http://u:p4ss@host/x,"
        " /home/ada/models, /home/adam/models"
    )
    assert (
        redact(text)
        == "token ***, https://ada:***@x, http://***@host/x, ~/models, /home/adam/models"
    )


def test_other_text_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    text = "runs:/0123/report.json models:/m-1 sqlite:////data/mlflow.db abc user@example.org"
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ghp_x@github.com/a/b", "https://***@github.com/a/b"),
        ("postgresql://u:p@ss@db/x", "postgresql://***@db/x"),
        ("ssh://git@github.com/a", "ssh://git@github.com/a"),
        ('["http://host","ada@example.org"]', '["http://host","ada@example.org"]'),
    ],
)
def test_credentials_of_urls(text: str, expected: str) -> None:
    assert redact_credentials(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/mnt/root/store", "/mnt/root/store"),
        ("sqlite:////root/mlflow.db", "sqlite:///~/mlflow.db"),
        ("in /root.", "in ~."),
        ("/root-backup /root.old /rooted", "/root-backup /root.old /rooted"),
    ],
)
def test_only_the_home_folder_itself_is_replaced(
    text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    assert redact(text) == expected


def test_leaf_by_leaf_so_that_no_syntax_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "because")
    assert redact_leaves({"reason": "because it", "more": ["because", 1, None]}) == {
        "reason": "*** it",
        "more": ["***", 1, None],
    }


def test_a_home_folder_in_an_override_stays_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    for word in ("evaluate.pack=/home/ada/my-pack", "evaluate.pack='/home/ada/my pack'"):
        shown = redact_override(word)
        assert str(OverridesParser.create().parse_override(shown).value()).startswith("~/my")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://:p4ssw0rd@cache/0", "redis://***@cache/0"),
        (
            "postgresql+psycopg2://mlflow:p4ss@db/mlflow?sslmode=require",
            "postgresql+psycopg2://***@db/mlflow?sslmode=require",
        ),
        (
            "host=db user=mlflow password=p4ss dbname=mlflow",
            "host=db user=mlflow password=*** dbname=mlflow",
        ),
        ("host=db password='p4 ss' dbname=mlflow", "host=db password=*** dbname=mlflow"),
        ("Server=db;UID=sa;PWD=p4ss;", "Server=db;UID=sa;PWD=***;"),
        (
            "AccountName=a;AccountKey=Zm9v+bar==;EndpointSuffix=x",
            "AccountName=a;AccountKey=***;EndpointSuffix=x",
        ),
        ("token hf_abcdefghijklmnopqrst.", "token ***."),
        ("AKIAIOSFODNN7EXAMPLE and ghp_0123456789abcdefghij0123456789abcdef", "*** and ***"),
        ("Authorization: Bearer abc0.def-123_456~789", "Authorization: Bearer ***"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nafter",
            "***\nafter",
        ),
    ],
)
def test_connection_strings_and_tokens(text: str, expected: str) -> None:
    assert redact_credentials(text) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "The password field is empty: password = none was given.",
        (
            "AKIA is a prefix, hf_model a name, sk-learn a library, and https://example.org/a@b a"
            " page."
        ),
        "The bearer responsibilities are shared; a bearer token is a string.",
        "Write to anna@example.org or see postgresql://localhost/db. true false 12345678",
        "My home is /root and my user is root.",
    ],
)
def test_honest_answers_stay_as_they_are(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # the value of a count or a switch is no secret
    monkeypatch.setenv("USE_TOKEN_CACHE", "12345678")
    assert redact_answer({"text": answer, "tokens": [1, 2.5, None]}) == {
        "text": answer,
        "tokens": [1, 2.5, None],
    }


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("POSTGRES_PASSWORD", "postgres", "The database is PostgreSQL; connect as postgres."),
        ("MLFLOW_TRACKING_PASSWORD", "password", "Your password must be changed."),
        ("GIT_CREDENTIAL_HELPER", "manager", "The manager said so."),
        ("SECRET_SEED", "3.14159265", "Pi is 3.14159265 and more."),
        ("DB_SECRET_PIN", "1000000000", "1000000000 is a billion."),
        (
            "DATABASE_URL",
            "postgresql://mlflow:mlflow@db/mlflow",
            "MLflow is installed with pip install mlflow.",
        ),
        ("TOKENIZER", "Mistral-7B", "Mistral-7B is a model."),
        ("TOKENIZERS_BACKEND", "rust-backend", "The rust-backend is fast."),
        ("TOKEN_TYPE", "Bearer", "Send it as Bearer."),
    ],
)
def test_a_word_that_is_somebodys_password_stays_in_an_answer(
    name: str, value: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its score would depend on the environment of who evaluates."""
    monkeypatch.setenv(name, value)
    assert redact_answer({"text": answer}) == {"text": answer}


def test_such_a_word_is_no_part_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "postgres")
    assert redact_credentials("cannot connect with postgres") == "cannot connect with ***"
    assert redact_answer("postgresql://u:postgres@db") == "postgresql://***@db"


@pytest.mark.parametrize(
    "unit",
    [
        "-eyJ",
        ".eyJ",
        "eyJaaaaaaaa.",
        "eyJaaaaaaaa.eyJ",
        "://a:",
        "://",
        "http://a",
        "a:a@",
        "password=",
        "password =",
        "password" + " " * 50,
        "host=a password" + " " * 50 + "= '",
        "host=a password='",
        "user id  ",
        "data source   ",
        "-----BEGIN ",
        "-----BEGIN A A ",
        "-----BEGIN PRIVATE KEY---",
        "-----BEGIN PRIVATE KEY----- -----END ",
        "bearer aaaaaaaaaaaaaaaaa",
        "Bearer ",
        "xoxa-",
        "-xoxa-",
        "-sk-",
        "sk-proj-",
        "glpat-",
        "whsec_",
        "hf_",
        "_hf_",
        "AKIA",
        "github_pat_",
        "Basic ",
        "Authorization: Basic aaaa",
        "host=x password='",
        "postgres://a:",
        "host=a password={",
        "sig=",
        "&sig",
        "?token=",
        "&token=a",
        "X-Amz-Signature=",
        "?a=b&",
        "://a:b ",
        "://a:b c ",
        "jdbc:oracle:thin:",
        "jdbc:oracle:thin:a/",
        "?a_a_",
        "&api_",
        "authorization: bearer ",
        "x-a-",
        "--a-",
        "--password ",
        "--password='",
        "mysql ",
        "mysql a ",
        "mysql -",
        "curl -u a ",
        "redis-cli a ",
        "sqlplus -a ",
        "sqlplus a/",
        "A_",
        "PASSWORD",
        "TOKEN=",
        "A_KEY='",
        "\npassword: ",
        "\npassword: a ",
        "\n a_a_",
        ", a.",
        ",",
        "{password: '",
        '"password": "',
        "=",
        "a",
        " ",
        "\n",
        "-",
        ".",
        "/",
        "'",
    ],
)
def test_the_cost_grows_with_the_length_alone(unit: str) -> None:
    """200 KB of what almost is a secret; a model may answer anything. A quadratic pattern takes a
    minute for it.
    """
    started = time.process_time()
    redact_answer({"text": unit * (200_000 // len(unit))})
    redact_credentials("host=" + unit * (200_000 // len(unit)))
    assert time.process_time() - started < 5


def test_the_password_of_a_url_in_the_environment_is_a_secret_on_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://mlflow:corr%20ect-horse@db/mlflow")
    monkeypatch.setenv("BACKEND", "host=db password=battery-staple dbname=x")
    assert redact_credentials("corr%20ect-horse, corr ect-horse, battery-staple") == "***, ***, ***"


def test_other_notations_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    import base64
    import json
    from urllib.parse import quote

    secret = 'p/4"ss wörd-0123'
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    for shown in (
        secret,
        quote(secret, safe=""),
        json.dumps(secret),
        base64.b64encode(secret.encode()).decode(),
    ):
        assert secret not in redact_credentials(shown) and "***" in redact_credentials(
            f"<{shown}>"
        ), shown


def test_values_of_credentials_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name, text in {
        ".mlflow/credentials": (
            "[mlflow]\nmlflow_tracking_username = rosa\nmlflow_tracking_password = from-mlflow\n"
        ),
        ".aws/credentials": (
            "[default]\naws_access_key_id = AKIDfrom\naws_secret_access_key = from-aws\n"
        ),
        ".netrc": "machine host login rosa password from-netrc",
        ".pgpass": "db:5432:mlflow:rosa:from-pgpass\n",
        ".cache/huggingface/token": "from-hugging-face\n",
        ".git-credentials": "https://rosa:from-git@git.example.org\n",
        ".config/gcloud/application_default_credentials.json": (
            '{"client_secret": "from-gcloud", "type": "authorized_user"}'
        ),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    text = (
        "from-mlflow from-aws from-netrc from-pgpass from-hugging-face from-git from-gcloud"
        " authorized_user rosa"
    )
    assert redact_credentials(text) == "*** *** *** *** *** *** *** authorized_user rosa"
    (tmp_path / ".netrc").write_text("machine host login rosa password changed-since")
    assert redact_credentials("changed-since") == "***"


@pytest.mark.parametrize("name", ["MYSQL_PWD", "DB_PASS", "AZURE_STORAGE_KEY", "PRIVATE_KEY"])
def test_more_names_of_secrets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "tiger-secret-2")
    assert redact_answer("a tiger-secret-2") == "a ***" == redact_credentials("a tiger-secret-2")


def test_variables_of_shells_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PWD", "OLDPWD", "SSH_ASKPASS", "PRIVATE_KEY_PATH", "BYPASS_CACHE", "COMPASS"):
        monkeypatch.setenv(name, "/srv/plain-folder")
    assert redact_credentials("/srv/plain-folder") == "/srv/plain-folder"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "https://x.blob.example/c?sv=2022&sig=AbCdEf%2Fxyz123%3D&se=1",
            "https://x.blob.example/c?sv=2022&sig=***&se=1",
        ),
        (
            "https://s3.x/b?X-Amz-Signature=deadbeef00112233 is",
            "https://s3.x/b?X-Amz-Signature=*** is",
        ),
        ("https://x/?token=qwertyuiop12&a=b", "https://x/?token=***&a=b"),
        (
            "Authorization: Basic cm9zYTp0cmFja2luZy1wYXNzLTQ0MTc= sent",
            "Authorization: Basic *** sent",
        ),
        ('{"Authorization": "Basic cm9zYTp0cmFja2luZw=="}', '{"Authorization": "Basic ***"}'),
        (
            "basic authorization, max_token=12345678, signature=valid",
            "basic authorization, max_token=12345678, signature=valid",
        ),
    ],
    ids=range(6),  # pytest puts the name of a test into the environment
)
def test_credentials_of_headers_and_queries(text: str, expected: str) -> None:
    """Not in answers: an example of such an address or header is what some questions ask for."""
    assert redact_credentials(text) == expected
    assert redact_answer(text) == text


def test_the_signature_of_an_address_in_the_environment_is_a_secret_on_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARTIFACTS", "https://x.blob.example/c?sv=2022&sig=AbCdEf%2Fxyz123%3D")
    assert redact_answer("AbCdEf%2Fxyz123%3D or AbCdEf/xyz123=") == "*** or ***"


@pytest.mark.parametrize("home", ["closed", "closed/home", "a-file/home", "nowhere"])
def test_a_home_folder_that_cannot_be_entered(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a service whose account has another user's home; root enters every folder, so its calls
    are refused here.
    """
    (tmp_path / "a-file").write_text("")
    closed = str(tmp_path / "closed")
    real = os.stat

    def stat(path: Any, *words: Any, **more: Any) -> os.stat_result:
        if isinstance(path, str | Path) and str(path).startswith(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *words, **more)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / home)
    monkeypatch.setenv("HF_TOKEN", "tiger-secret-1")
    assert redact(f"tiger-secret-1 in {tmp_path / home}/x") == "*** in ~/x"
    assert visible.homes() and visible.secret(os.environ)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://mlflow:pa/ss-Word9@db/mlflow",
        "postgresql://u:it's-secret9@db/x",
        "postgresql+psycopg2://admin@myserver:Secret123x@h/db",
        "postgresql://db/x?password=Secret123x",
        "jdbc:postgresql://h/db?user=fred&password=Secret123x",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D1%3BPWD%3DSecret123x%3BX%3D2",
        'host=db password="Secret 123x"',
        "host=db passwd=Secret123x user=u",
        "UID=u;PWD={Secr;et123x};",
        "UID=u;PWD=abc,Secret123x;",
        "host=db password='it\\'s Secret123x'",
        "sk_live_0123456789abcdefghij",
        "https://hooks.slack.com/services/T0000/B0000/0123456789abcdef",
    ],
)
def test_more_forms_of_connection_strings_and_tokens(text: str) -> None:
    shown = redact(text)
    assert "***" in shown
    assert not re.search(r"(?i)ss-word9|secret|et123x|0123456789", shown)


WRITTEN = [
    "postgres://u:S3cret w0rd@h/db",
    "mysql+pymysql://root:a S3cret one@h",
    "https://u:S3cret w0rd@h/x",
    "jdbc:oracle:thin:u/S3cretw0rd@h:1521/x",
    "jdbc:oracle:oci:scott/S3cret@w0rd@//h/x",
    'jdbc:oracle:thin:u/"S3cret w0rd"@h',
    "sqlplus -S scott/S3cretw0rd@h",
    "https://h/x?api_key=S3cretw0rd",
    "https://h/x?a=b&client_secret=S3cretw0rd&c=d",
    "https://h/x?subscription-key=S3cretw0rd",
    "https://h/x?my.app_password=S3cretw0rd",
    "https://h/x?key=S3cretw0rdS3cretw0rd",
    "Authorization: Bearer S-cretwordcretwordcretw",
    '{"Authorization": "Bearer Scretword"}',
    "authorization=token Scretword",
    "sent Bearer Scretwordcretwordcretwo",
    "X-Api-Key: S3cretw0rd",
    "mysql -u root -pS3cretw0rd db",
    "mysqldump --host=h -p'S3cret w0rd' db",
    "sshpass -p S3cretw0rd ssh h",
    "redis-cli -h h -a S3cretw0rd",
    "curl -s -u rosa:S3cretw0rd https://h",
    "run --password=S3cretw0rd",
    "run --password S3cretw0rd",
    'run --db-password "S3cret w0rd" --verbose',
    "run --api-key S3cretw0rd",
    "run --token=S3cretw0rd",
    "PGPASSWORD=S3cretw0rd psql",
    "export AWS_SECRET_ACCESS_KEY='S3cretw0rd'",
    "dbname=x\npassword: S3cretw0rd",
    "db:\n  password: 'S3cret w0rd'\n  host: h",
    "db:\n  - admin_password: S3cret w0rd\n",
    '{"user": "u", "password": "S3cretw0rd"}',
    "{user: u, api_key: S3cretw0rd}",
    "auth_token: S3cretw0rd",
    'clientSecret: "S3cret w0rd"',
]


@pytest.mark.parametrize("text", WRITTEN, ids=range(len(WRITTEN)))
def test_secrets_as_command_lines_yaml_headers_and_addresses_write_them(text: str) -> None:
    shown = redact(text)
    assert "***" in shown
    assert not re.search(r"(?i)s.?cret[ @]?w|w0rd|cretword|s3cret", shown)


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8080 is up, write to rosa@example.org",
        "see http://host: write to rosa@example.org",
        "--password is required, and --token must not be empty",
        "Password: it must be changed. The secret: none",
        "password:\n  missing",
        "token: null",
        "pad_token: <|endoftext|>, eos_token: </s>, --pad-token <pad>, max_new_tokens: 12345678",
        "TOKENIZERS_PARALLELISM=false MAX_TOKEN=12345678 KEY=ab PWD=/srv/plain-folder",
        "mysql -u root -h host; the bearer responsibilities",
        "secret_file: /run/secrets/one, notifications.secret_env: SOME_NAME",
        "https://h/x?tokenizer=a-long-name&page_token_count=100000",
        "jdbc:oracle:thin:@//h:1521/x",
    ],
)
def test_sentences_and_settings_around_secrets_stay(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "answer",
    [
        "Your password: it must have 12 characters.",
        "password: hunter2 is a famous joke.",
        "Run `mysql -phunter2` or `app --password=hunter2`; never do it.",
        "Send `Authorization: Bearer abcdefghijklmnopqrstuvwx` with ?api_key=my-own-key.",
        "The form is postgres://user:password, and mail goes to rosa@example.org.",
    ],
)
def test_examples_in_answers_stay_readable(answer: str) -> None:
    assert redact_answer(answer) == answer


def test_a_password_with_blanks_in_the_environment_is_a_secret_on_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://u:battery staple-9@db/x")
    monkeypatch.setenv("ORACLE_URL", "jdbc:oracle:thin:u/correct-h0rse@h:1521/x")
    assert redact_answer("battery staple-9 or correct-h0rse") == "*** or ***"


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-compatible-estimators",
        "sk-container-id-1-abcdefghi",
        "http://h:5000/path?x=a@b",
        "see postgresql://h/db, and write to rosa@example.org",
        "the password=hello of a story",
    ],
)
def test_what_only_looks_like_them_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "name", ["API_TOKENS", "GITHUB_PAT", "REDISCLI_AUTH", "RELEASE_SIGNING_KEY"]
)
def test_values_of_secret_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "Zt9-value-of-it")
    assert redact("it is Zt9-value-of-it") == "it is ***"
