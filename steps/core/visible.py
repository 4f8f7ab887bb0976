"""Which files a confined child sees: the interpreter's, what it is given, and no credentials."""

import contextlib
import os
import pwd
import site
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from steps.core.redaction import FILES, SECRET_NAMES

# other processes' files and sockets
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run")
# what may hold credentials wherever the home folder's own are hidden already, or cannot be
SYSTEM = (
    # containers' and Kubernetes' secrets; the server's settings
    "/run/secrets", "/var/run/secrets", "/etc/mlflow",
    # root's child is still the owner of these
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-",
)  # fmt: skip
PROJECT = Path(__file__).parents[2]
HOME = (
    ".aws", ".azure", ".config/gcloud", ".databrickscfg", ".docker", ".git-credentials",
    ".huggingface", ".cache/huggingface/token", ".cache/huggingface/stored_tokens", ".kube",
    ".mlflow", ".netrc", ".pgpass", ".pip", ".config/pip", ".pypirc", ".ssh", ".gnupg",
)  # fmt: skip
VARIABLES = (
    "KUBECONFIG", "PIP_CONFIG_FILE", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "BOTO_CONFIG",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)  # fmt: skip
DATABASE_FILES = ("", "-wal", "-shm", "-journal")  # of SQLite
named_files: dict[str, None] = {}  # by settings, for the life of this process
named_folders: dict[str, None] = {}


def keep(*files: str | None) -> None:
    """Keep files that a setting names, such as a signing key, from every child that is started from
    now on.
    """
    for file in filter(None, files):
        path = Path(os.path.expanduser(file))  # noqa: PTH111 - an unknown user's ~ is not an error
        named_files[str(path.absolute())] = None


def keep_folder(folder: Path) -> None:
    """Keep a folder of secrets from every child that is started from now on: also the files that
    replace those in it, which a file's own hiding would not outlive.
    """
    named_folders[str(folder.absolute())] = None


def homes() -> list[str]:
    """Home folders of this user, by the environment and by the system; never the root folder."""
    folders = [str(Path.home())]
    with contextlib.suppress(KeyError):  # a container may run under a number that has no name
        folders.append(pwd.getpwuid(os.geteuid()).pw_dir)
    return [path for path in dict.fromkeys(folders) if path != "/" and os.path.isdir(path)]  # noqa: PTH112 - False too in a folder that may not be entered


def hidden() -> list[str]:
    """Folders that a child finds empty."""
    return list(dict.fromkeys([*homes(), *TEMPORARY, tempfile.gettempdir()]))


def secret(environment: Mapping[str, str]) -> list[str]:
    """Files and folders of credentials, and the database of a local tracking server, whose writer
    could forge what is in it.
    """
    paths = [str(Path(home) / name) for home in homes() for name in HOME]
    paths += [
        environment[name]
        for name in (*(name for name, _ in FILES), *VARIABLES)
        if environment.get(name)
    ]
    named = [
        Path(value)
        for name, value in environment.items()
        if name.endswith("_FILE") and SECRET_NAMES.search(name)
    ]
    named += [*map(Path, named_files), PROJECT / ".env", Path(".env"), PROJECT / ".git" / "config"]
    paths += [str(path.absolute()) for path in named if os.path.isfile(path)]  # noqa: PTH113 - a folder of this name may be an interpreter's
    paths += filter(os.path.isdir, named_folders)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_BACKEND_STORE_URI"):
        paths += database_files(environment.get(variable, ""))
    return [*dict.fromkeys(paths), *SYSTEM]


def database_files(uri: str) -> list[str]:
    """Files of an SQLite store; none of another."""
    scheme, _, rest = uri.partition(":///")
    path = rest.partition("?")[0].removeprefix("file:")
    if not scheme.lower().startswith("sqlite") or not path:
        return []
    return [str(Path(unquote(path)).absolute()) + end for end in DATABASE_FILES]


@cache
def of_python() -> tuple[str, ...]:
    """What the interpreter needs: its environments, each link on the way to its program, and
    libraries named by ``LD_LIBRARY_PATH``.
    """
    paths = [
        sys.prefix,
        sys.exec_prefix,
        sys.base_prefix,
        sys.base_exec_prefix,
        *site.getsitepackages(),
        str(Path(__file__).parent),
    ]
    if site.ENABLE_USER_SITE:
        paths.append(site.getuserbase())
    program = Path(sys.executable)
    for _ in range(40):  # as many links as the kernel follows
        paths.append(str(program))
        if not program.is_symlink():
            break
        program = program.parent / program.readlink()
    paths += filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    return tuple(path for path in dict.fromkeys(paths) if os.path.exists(path))  # noqa: PTH110 - as above
