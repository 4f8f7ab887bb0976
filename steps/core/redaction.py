"""What must not reach a run, a file or a screen: secrets, and the user's home folder."""

import base64
import configparser
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from steps.core.written_secrets import WITH_BLANKS, without_written

SECRET_NAMES = re.compile(
    r"((?:API|ACCESS|AUTH|BEARER)_?TOKENS(?![A-Z])|TOKEN(?!IZER|S|_TYPE)|PASSWORD|PASSWD|PASSPHRASE|SECRET|API_?KEY|ACCESS_KEY|ENCRYPTION_KEY|CREDENTIAL|PGPASS|CONNECTION_STRING|(?<![A-Z])DSN(?![A-Z])"
    r"|MYSQL_PWD|_(?:PASS|PAT|AUTH)(?![A-Z_])|(?:STORAGE|PRIVATE|SIGNING|DJANGO)_KEY)",
    re.IGNORECASE,
)
# user:password of any URL, and a user alone where the web is meant: forges take a token there
CREDENTIALS = re.compile(
    r"""(?<=://)[^/\s:@"']*:[^/\s"']+(?=@)|((?<=http://)|(?<=https://))[^/\s@"']+(?=@)"""
)
# user:password of a database, where SQLAlchemy takes nearly any character up to the last @; of a
# bounded length, so that a text of many beginnings is read once
DATABASE = re.compile(
    r"""(?i)(?<![a-z0-9+.-])(?:postgres|mysql|mariadb|mssql|oracle|cockroachdb|redshift|snowflake|redis|amqp|mongodb)"""
    r"""[a-z0-9+.-]{0,32}:/{2}([^\s:/"<>]{0,256}:[^\s"<>]{1,512})(?=@)"""
)
# user/password of Oracle's drivers
ORACLE = re.compile(
    r"""(?i)\bjdbc:oracle:[a-z0-9]{1,8}:([^\s/@"'<>]{1,128}/(?:"[^"\n]{1,512}"|[^\s"'<>]{1,512}))(?=@)"""
)
# password=… of a connection string: of libpq ("host=db user=u password=p"), of ODBC
# ("UID=u;PWD=p;"), of Azure ("AccountKey=…;")
KEYWORDS = re.compile(
    r"(?i)\b(password|passwd|pwd|accountkey|sharedaccesskey|sslpassword)\s*=\s*"
    r"""('(?:[^'\\]|\\.){0,512}'|"[^"]{0,512}"|\{[^}]{0,512}\}|[^\s;'"&{]+)"""
)
# signatures and tokens of presigned addresses: of Azure, S3, Google Cloud Storage, and whoever else
# writes token=
QUERY = re.compile(
    r"""(?i)([?&;](?:password|passwd|pwd|sslpassword)=|(?:%3b|%3f|%26|\b)pwd%3d|[?&](?:sig|x-(?:amz|goog)-signature|x-amz-security-token|(?:access_|auth_)?token)=)([^&\s"'<>#]{6,})"""
)
# user:password in base64
BASIC = re.compile(r"(?i)(\bauthorization\W{1,4}basic )[A-Za-z0-9+/_-]{8,}=*")
CONNECTION = re.compile(
    r"(?i)\b(host|hostaddr|server|dbname|data source|uid|user id|accountname|endpoint)\s*="
)
# tokens that name themselves; each pattern as its issuer documents it, or as its scanners look for
# it. A run of characters that may be long is looked at from its beginning alone: from each of its
# characters again, an answer of 1 MB would take minutes
TOKENS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}"
    r"|\bxox[abprs]-[\w-]{10,}|\bsk-(?:proj-|ant-|or-|svcacct-)[A-Za-z0-9_-]{20,}|\bsk-[A-Za-z0-9]{20,}|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|\bdapi[a-f0-9]{32}\b|\bwhsec_[A-Za-z0-9+/=]{20,}"
    r"|(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}|(?<=[Bb]earer"
    r" )(?=\S*\d)[A-Za-z0-9._~+/-]{16,}=*"
    r"|\bAIza[\w-]{35}|\bnvapi-[\w-]{20,}|\bnpm_[A-Za-z0-9]{36}|\bpypi-[\w-]{50,}|\bxapp-[\w-]{10,}"
    r"|\bAGE-SECRET-KEY-1[A-Z0-9]{20,}|(?<=hooks\.slack\.com/services/)[\w/]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?"
    r"(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
SHORTEST_SECRET = 6  # characters; shorter values would blot out ordinary words
# values of a switch or a count, such as TOKENIZERS_PARALLELISM
PLAIN = re.compile(r"(?i)true|false|none|null|\d{1,8}")
# values that an honest answer has for reasons of its own: those stay in answers, which are scored
# as they are kept, and go elsewhere
ORDINARY = re.compile(r"[a-z]{1,11}|[-+]?\d{1,15}(?:[.,]\d{1,15}){0,4}")
LARGEST_FILE = 65_536  # bytes of a credentials file that are read
# files of credentials below the home folder, and the variables that move them; what reads them is
# in the comment
FILES = (
    ("MLFLOW_CREDENTIALS_FILE", ".mlflow/credentials"),  # mlflow: [mlflow] mlflow_tracking_password
    ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),  # boto3
    ("AWS_CONFIG_FILE", ".aws/config"),
    ("HF_TOKEN_PATH", ".cache/huggingface/token"),  # huggingface_hub
    ("NETRC", ".netrc"),  # requests, pip
    ("PGPASSFILE", ".pgpass"),  # libpq
    ("DATABRICKS_CONFIG_FILE", ".databrickscfg"),
    ("GOOGLE_APPLICATION_CREDENTIALS", ".config/gcloud/application_default_credentials.json"),
    ("MLFLOW_AUTH_CONFIG_PATH", ".mlflow/basic_auth.ini"),
    ("", ".git-credentials"),
)
NAMES_OF_FILES = frozenset(name for name, _ in FILES)  # their values are paths
KEY_OF_FILE = re.compile(
    r"(?i)(token|password|passwd|secret|api_?key|access_key|private_key$|credential)"
)


def redact(text: str) -> str:
    """``text`` without credentials, and with ``~`` for the home folder's path."""
    text = redact_credentials(text)
    home = str(Path.home())
    return (
        text if home == "/" else re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w-]|\.\w)", "~", text)
    )


def redact_credentials(text: str) -> str:
    """``text`` without credentials of URLs, connection strings and headers, tokens, and values of
    this process's secrets.
    """
    return without_written(BASIC.sub(r"\1***", QUERY.sub(r"\1***", _without(text, secrets()))))


def _without(text: str, values: Iterable[str]) -> str:
    text = TOKENS.sub("***", CREDENTIALS.sub("***", DATABASE.sub(_without_group, text)))
    text = ORACLE.sub(_without_group, text)
    if CONNECTION.search(text):
        text = KEYWORDS.sub(r"\1=***", text)
    for value in values:
        text = text.replace(value, "***")
    return text


def _without_group(match: re.Match[str]) -> str:
    """The match with its first group blotted out."""
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return f"{match.group()[:start]}***{match.group()[end:]}"


def redact_leaves(value: Any) -> Any:
    """``redact`` on every text in nested mappings and lists: in their YAML it could break the
    syntax.
    """
    return _leaves(value, redact)


def redact_answer(value: Any) -> Any:
    """What a model said, each text without this process's secrets and without what names itself as
    a token or a URL's credentials.

    Addresses and headers of its own are examples, which some questions ask for. An answer that
    names a home folder stays as it was given, and so does one with a word or a number that somebody
    made a password.
    """
    known = [value for value in secrets() if not ORDINARY.fullmatch(value)]
    return _leaves(value, lambda text: _without(text, known))


def _leaves(value: Any, clean: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {key: _leaves(item, clean) for key, item in value.items()}
    if isinstance(value, list):
        return [_leaves(item, clean) for item in value]
    return value


def redact_override(word: str) -> str:
    """``key=value`` redacted; Hydra's grammar takes the ``~`` of a home folder in quotes only."""
    shown = redact(word)
    key, equals, value = shown.partition("=")
    if shown == word or not equals or any(mark in value for mark in "'\"[{("):
        return shown
    return f"{key}='{value}'" if "~" in value else shown


def secrets() -> tuple[str, ...]:
    """Values that must not be shown, longest first: of secret environment variables, of URLs in
    others, and of credentials files.

    Each also as a URL, JSON and base64 would write it.
    """
    files = tuple((path, _stamp(path)) for path in credential_files(os.environ))
    return _forms(tuple(os.environ.items()), files)


def credential_files(environment: Mapping[str, str]) -> list[Path]:
    """Files of this user's credentials that there are."""
    home = Path.home()
    places = [
        Path(environment[name]) if environment.get(name) else home / file for name, file in FILES
    ]
    return [path for path in dict.fromkeys(places) if os.path.isfile(path)]  # noqa: PTH113 - False too for one that may not be looked for


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # gone in between
        return 0


def _of_environment(environment: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in environment:
        if (
            SECRET_NAMES.search(name)
            and name not in NAMES_OF_FILES
            and not name.endswith(("_FILE", "_PATH", "_DIR"))
        ):
            yield value
        yield from _of_urls(value)


def _of_urls(text: str) -> Iterator[str]:
    """Passwords and signatures in URLs and connection strings, also on their own."""
    yield from (match.group(2) for match in QUERY.finditer(text))
    if "@" in text:
        for match in CREDENTIALS.finditer(text):
            _, colon, password = match.group().partition(":")
            yield password if colon else match.group()
        for match in DATABASE.finditer(text):
            yield match.group(1).partition(":")[2]
        for match in ORACLE.finditer(text):
            yield match.group(1).partition("/")[2].strip('"')
        for match in WITH_BLANKS.finditer(text):
            yield match.group().partition(":")[2]
    if "=" in text and CONNECTION.search(text):
        yield from (match.group(2).strip("'\"{}") for match in KEYWORDS.finditer(text))


@lru_cache(maxsize=64)
def _of_file(path: Path, stamp: int) -> tuple[str, ...]:  # noqa: ARG001 - the stamp tells a changed file
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_FILE).decode("utf-8", "replace")
    except OSError:  # what we cannot read a child of ours cannot either
        return ()
    if path.name == "token":
        return (text.strip(),)
    if path.name in (".netrc", "_netrc"):
        words = text.split()
        return tuple(after for before, after in pairwise(words) if before == "password")
    if path.name in (".pgpass", "pgpass.conf"):
        return tuple(
            re.split(r"(?<!\\):", line)[4] for line in text.splitlines() if line.count(":") >= 4
        )
    if text.lstrip().startswith("{"):
        return tuple(_of_json(text))
    values = list(_of_urls(text))
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return tuple(values)
    values += [
        value
        for section in parser.sections()
        for key, value in parser.items(section)
        if KEY_OF_FILE.search(key)
    ]
    return tuple(values)


def _of_json(text: str) -> Iterator[str]:
    try:
        content = json.loads(text)
    except ValueError:
        return
    if isinstance(content, dict):
        yield from (
            value
            for key, value in content.items()
            if isinstance(value, str) and KEY_OF_FILE.search(key)
        )


@lru_cache(maxsize=8)
def _forms(
    environment: tuple[tuple[str, str], ...], files: tuple[tuple[Path, int], ...]
) -> tuple[str, ...]:
    """Secrets that are long enough, as they are and as other notations write them."""
    forms: set[str] = set()
    for value in _distinct(
        [
            *_of_environment(environment),
            *(form for path, stamp in files for form in _of_file(path, stamp)),
        ]
    ):
        forms |= {value, quote(value, safe=""), unquote(value), json.dumps(value)[1:-1]}
        if len(value) >= 2 * SHORTEST_SECRET:
            forms.add(base64.b64encode(value.encode()).decode().rstrip("="))
    return tuple(
        sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True)
    )


def _distinct(values: Iterable[str]) -> Iterator[str]:
    for value in dict.fromkeys(value.strip() for value in values):
        if len(value) >= SHORTEST_SECRET and not PLAIN.fullmatch(value):
            yield value
