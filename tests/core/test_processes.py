"""What a supervised child gets, cannot reach, and does not survive. Real processes; each test says
what the kernel has to hold.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from steps.core import visible
from steps.core.confine import LAYERS
from steps.core.processes import Child, ChildStartError, Confinement, allowance, environment
from tests.conftest import ROOT

OPEN = Confinement(layers=())


def run(
    code: str, folder: Path, confinement: Confinement | None = None, **variables: str
) -> tuple[int, str]:
    """Exit code and output of Python code in a confined child."""
    confined = confinement or Confinement(writable=(folder,))
    with Child(
        [sys.executable, "-I", "-c", code],
        environment=environment(variables),
        cwd=folder,
        confinement=confined,
    ) as child:
        return child.wait(60), child.tail()


def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_TOKEN",
        "AWS_PROFILE",
        "HF_TOKEN",
        "DATABASE_URL",
        "SLM_WEBHOOK_SECRET",
        "HTTPS_PROXY",
    ):
        monkeypatch.setenv(name, "something-long")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("SLM_STORE", "/store")
    monkeypatch.setenv("SLM_INTERNAL_NOTE", "plain-note")
    monkeypatch.setenv("SLM_MIRROR", "https://rosa:p4ssw0rd@mirror.example.org")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    given = environment({"HOME": "/empty"})
    assert (
        given["OMP_NUM_THREADS"] == "2"
        and given["SLM_STORE"] == "/store"
        and given["HOME"] == "/empty"
    )
    assert "something-long" not in given.values() and not {
        "PYTHONPATH",
        "SLM_MIRROR",
        "SLM_INTERNAL_NOTE",
    } & set(given)
    assert environment(python=True)["PYTHONPATH"] == "/mine"


@pytest.mark.usefixtures("namespaces")
def test_no_network_no_other_process_no_file_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, own, shown = tmp_path / "home", tmp_path / "own", tmp_path / "shown"
    for folder in (home, own, shown):
        folder.mkdir()
        (folder / "file").write_text("here")
    (home / ".aws").mkdir()
    monkeypatch.setenv("HOME", str(home))
    code = f"""
import os, socket
for path in ({str(home)!r}, {str(own)!r}, {str(shown)!r}, "/root", {str(tmp_path.parent)!r}):
    print(sorted(os.listdir(path)) if os.path.exists(path) else [])
for path in ({str(home)!r}, {str(own)!r}, {str(shown)!r}, "/etc", "/dev/shm", "/tmp"):
    try:
        open(path + "/new", "w").close()
        print("wrote", os.path.basename(path))
    except OSError as error:
        pass
print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) == [1, os.getpid()])
try:
    socket.create_connection(("127.0.0.1", 80), timeout=2)
except OSError as error:
    print(error.strerror)
for call in (lambda: os.setuid(0), lambda: os.kill(-1, 0)):
    try:
        call()
    except OSError:
        pass
print(open("/proc/self/status").read().split("CapEff:")[1].split()[0])
"""
    returncode, output = run(code, own, Confinement(readable=(shown,), writable=(own,)))
    lines = output.splitlines()
    assert returncode == 0, output
    assert (
        lines[:3] == ["[]", "['file']", "['file']"]
        and "file" not in lines[3]
        and lines[4] == f"['{tmp_path.name}']"
    )
    assert lines[5:] == [
        "wrote own",
        "wrote shm",
        "True",
        "Network is unreachable",
        "0000000000000000",
    ]
    assert not (shown / "new").exists() and (own / "new").exists()


@pytest.mark.usefixtures("namespaces")
def test_link_to_what_is_shown_later_is_followed(tmp_path: Path) -> None:
    """As an environment's ``bin/python`` is a link to an interpreter that lies in a longer path
    below a hidden folder.
    """
    short, long = tmp_path / "a", tmp_path / "a-much-longer-name-of-a-folder"
    short.mkdir()
    long.mkdir()
    (long / "file").write_text("here")
    (short / "link").symlink_to(long / "file")
    own = tmp_path / "own"
    own.mkdir()
    code = f"print(open({str(short / 'link')!r}).read())"
    assert run(code, own, Confinement(readable=(short, short / "link", long), writable=(own,))) == (
        0,
        "here",
    )


SPIED = """
import os
found = []
for name in ["self", str(os.getppid()), *(each for each in os.listdir("/proc") if each.isdigit())]:
    try:
        found.append(open(f"/proc/{name}/environ").read())
    except OSError:
        continue
print("found" if any("plain-name-4711" in each for each in found) else "nothing")
"""
PARENT = f"""
import sys, tempfile
from pathlib import Path
from steps.core import confine
from steps.core import processes
from steps.core.processes import Child, Confinement, environment
for layers in ((), ("processes",), ("network",), ("files",), confine.LAYERS, None):
    if layers is None:  # a machine without any: the child loses its privileges, and this process guards itself
        layers, processes.absent = confine.LAYERS, lambda: dict.fromkeys(confine.LAYERS, "none here")
    folder = Path(tempfile.mkdtemp())
    command, confined = [sys.executable, "-I", "-c", {SPIED!r}], Confinement(layers=layers, writable=(folder,))
    with Child(command, environment=environment(), cwd=folder, confinement=confined) as child:
        child.wait(60)
        print(child.tail(), flush=True)
"""  # noqa: E501


@pytest.mark.usefixtures("namespaces")
def test_the_environment_of_other_processes_cannot_be_read() -> None:
    """Any layer brings a user namespace, out of which nobody can trace. A build, which is trusted,
    can read its starter's.
    """
    variables = {**os.environ, "BUILD_NOTE": "plain-name-4711"}
    done = subprocess.run(
        [sys.executable, "-c", PARENT],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == ["found", *["nothing"] * 5], done.stderr


@pytest.mark.usefixtures("namespaces")
def test_files_of_credentials_are_hidden_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "google.json").write_text("secret")
    (shown / "mlflow.db").write_text("secret")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(shown / "google.json"))
    confined = Confinement(
        readable=(shown,), secret=tuple(visible.database_files(f"sqlite:///{shown}/mlflow.db"))
    )
    returncode, output = run(
        f"print([open({str(shown)!r} + name).read() for name in ('/google.json', '/mlflow.db')])",
        shown,
        confined,
    )
    assert (returncode, output) == (0, "['', '']")


@pytest.mark.usefixtures("namespaces")
def test_files_of_secrets_that_settings_and_variables_name_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    for name in ("key.pem", "webhook", "postgres", ".env", "TOKENIZER"):
        (shown / name).write_text("secret")
    monkeypatch.setattr(visible, "named_files", {})
    visible.keep(str(shown / "key.pem"), None)
    monkeypatch.setattr(visible, "PROJECT", shown)
    monkeypatch.setenv("WEBHOOK_SECRET_FILE", str(shown / "webhook"))
    monkeypatch.setenv("POSTGRES_PASSWORD_FILE", str(shown / "postgres"))
    # not a file: hiding a folder that is needed would be worse
    monkeypatch.setenv("OTHER_PASSWORD_FILE", str(tmp_path))
    monkeypatch.setenv("TOKENIZER_FILE", str(shown / "TOKENIZER"))
    code = f"""
import os
def read(path):
    try:
        return open(path).read()
    except OSError:
        return ""
print([read({str(shown)!r} + "/" + name) for name in ("key.pem", "webhook", "postgres", ".env", "TOKENIZER")], repr(read("/etc/shadow")))
shared = os.statvfs("/dev/shm")
print(shared.f_frsize * shared.f_blocks <= 256 << 20)
"""  # noqa: E501
    assert run(code, shown, Confinement(readable=(shown,))) == (
        0,
        "['', '', '', '', 'secret'] ''\nTrue",
    )


def test_memory_is_held_by_the_kernel(tmp_path: Path) -> None:
    """More than allowed cannot be had, and no core file is written; the bound holds without the
    supervisor.
    """
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)); bytearray(4 << 30)"
    returncode, output = run(code, tmp_path, Confinement(layers=(), memory_bytes=200 << 20))
    assert returncode == 1 and "(0, 0)" in output and "MemoryError" in output
    assert allowance(200 << 20) < 4 << 30


def test_output_is_bounded_and_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "correct-horse")
    code = "print('x' * 50_000_000); print('correct-horse and postgresql://u:p4ss@db')"
    with Child(
        [sys.executable, "-c", code],
        environment=environment(),
        cwd=tmp_path,
        confinement=OPEN,
        tail_bytes=1000,
    ) as child:
        assert child.wait(60) == 0
        tail = child.tail()
    assert len(tail) <= 1000 and tail.endswith("x\n*** and postgresql://***@db")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(7)", 7),
        ("import os; os.abort()", -6),
        ("import os; os.kill(os.getpid(), 9)", -9),
    ],
)
def test_the_exit_code_is_the_commands(code: str, expected: int, tmp_path: Path) -> None:
    assert run(code, tmp_path)[0] == expected
    assert run(code, tmp_path, OPEN)[0] == expected


@pytest.mark.usefixtures("namespaces")
def test_what_cannot_be_confined_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(ChildStartError, match=r"could not be confined: FileNotFoundError"):
        Child(
            ["/no/such/program"], environment=environment(), cwd=tmp_path, confinement=Confinement()
        )
    with pytest.raises(
        ChildStartError, match=r"could not be confined: .*mount .*/nowhere: No such file"
    ):
        Child(
            [sys.executable],
            environment=environment(),
            cwd=tmp_path,
            confinement=Confinement(writable=(tmp_path / "nowhere",)),
        )


DETACHED = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.close(1), os.close(2)
    open("detached", "w").write("up")
    while True:
        time.sleep(1)
os.wait()
while not os.path.exists("detached"):
    time.sleep(0.05)
print("up", flush=True)
time.sleep(600)
"""
KILLED = f"""
import sys, time
from pathlib import Path
from steps.core.processes import Child, Confinement, environment
folder = Path(sys.argv[1])
layers = sys.argv[2].split()
confined = Confinement(layers=tuple(layers), writable=(folder,))
child = Child([sys.executable, "-I", "-c", {DETACHED!r}], environment=environment(), cwd=folder, confinement=confined)
while "up" not in child.tail():
    time.sleep(0.05)
print(child.pid, flush=True)
time.sleep(600)
"""  # noqa: E501


def in_folder(folder: Path) -> list[psutil.Process]:
    """Processes that work in a folder, the detached ones too."""
    inside = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).name == folder.name and process.status() != psutil.STATUS_ZOMBIE:
                inside.append(process)
        except (psutil.Error, OSError):
            continue
    return inside


@pytest.mark.parametrize("layers", ["network processes files", ""])
def test_a_killed_supervisor_takes_its_child_along(
    layers: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By SIGKILL, so that it cannot say good-bye. In a process namespace, what the child has
    detached ends too.
    """
    if layers:
        request.getfixturevalue("namespaces")
    folder = tmp_path / f"work-{os.getpid()}-{len(layers)}"
    folder.mkdir()
    words = [sys.executable, "-c", KILLED, str(folder), layers]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        child = psutil.Process(int(supervisor.stdout.readline()))
        family = in_folder(folder)
        # with the two that hold the namespace
        assert child in family and len(family) == (4 if layers else 2)
        supervisor.kill()
        supervisor.wait()
        left = psutil.wait_procs(family if layers else [child], timeout=10)[1]
        # without a namespace, the kernel knows of no tie to a detached one
        for process in in_folder(folder):
            process.kill()
        assert left == []


@pytest.mark.parametrize("layers", [LAYERS, ()])
def test_the_end_of_a_child_is_the_end_of_its_children(
    layers: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if layers:
        request.getfixturevalue("namespaces")
    code = (
        "import subprocess, time; subprocess.Popen(['sleep', '600']); print('up', flush=True);"
        " time.sleep(600)"
    )
    confined = Confinement(layers=layers, writable=(tmp_path,))
    with Child(
        [sys.executable, "-I", "-c", code],
        environment=environment(),
        cwd=tmp_path,
        confinement=confined,
    ) as child:
        deadline = time.monotonic() + 20
        while not child.tail() and time.monotonic() < deadline:
            time.sleep(0.05)
        family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
        assert len(family) == 2 and child.resident() > 5_000_000, child.tail()
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert child.returncode == -signal.SIGKILL and child.resident() == 0


@pytest.mark.usefixtures("namespaces")
def test_detached_processes_are_counted(tmp_path: Path) -> None:
    code = """
import os, sys, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            held = bytearray(80_000_000)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(60)
        os._exit(0)
time.sleep(60)
"""
    with Child(
        [sys.executable, "-I", "-c", code],
        environment=environment(),
        cwd=tmp_path,
        confinement=Confinement(writable=(tmp_path,)),
    ) as child:
        deadline = time.monotonic() + 60
        while (held := child.resident()) < 160_000_000 and time.monotonic() < deadline:
            time.sleep(0.2)
    assert held >= 160_000_000


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////srv/ml.db?timeout=20",
        "SQLite:////srv/ml.db",
        "sqlite:///file:/srv/ml.db?uri=true",
    ],
)
def test_the_database_file_is_read_from_any_form_of_its_uri(uri: str) -> None:
    assert "/srv/ml.db" in visible.database_files(uri)
