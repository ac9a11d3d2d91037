"""Run inside a sandbox: what is there to see and to use. Prints JSON. The arguments are the key that
must be nowhere and the folder to look through."""

# Plain system calls, as any program in a sandbox would make them.

import json
import os
import socket
import stat
import sys
from collections.abc import Iterator

KEY = sys.argv[1].encode()
ROOT = sys.argv[2]
SKIPPED = ("/proc", "/sys")


def contents(path: str, limit: int = 1 << 20) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(descriptor, limit)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def walk() -> Iterator[tuple[str, list[str]]]:
    for folder, names, files in os.walk(ROOT):
        names[:] = [n for n in names if os.path.join(folder, n) not in SKIPPED]
        yield folder, files


def leaks() -> list[str]:
    found = [f"environment {name}" for name, value in os.environ.items() if KEY.decode() in value]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        # This probe was given the key to look for as its argument.
        names = ("environ",) if int(pid) == os.getpid() else ("environ", "cmdline")
        found += [f"/proc/{pid}/{name}" for name in names if KEY in contents(f"/proc/{pid}/{name}")]
    for folder, files in walk():
        for name in files:
            path = os.path.join(folder, name)
            if "site-packages" not in path and "/usr/lib" not in path and KEY in contents(path):
                found.append(path)
    return found


def sockets() -> list[str]:
    found: list[str] = []
    for folder, files in walk():
        for name in files:
            path = os.path.join(folder, name)
            try:
                if stat.S_ISSOCK(os.lstat(path).st_mode) and not path.startswith("/perstack/bus/"):
                    found.append(path)
            except OSError:
                pass
    return found


def writable() -> list[str]:
    found: list[str] = []
    for folder, _ in walk():
        probe = os.path.join(folder, ".probe")
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            os.unlink(probe)
        except OSError:
            continue
        if not any(folder == top or folder.startswith(top + "/") for top in found):
            found.append(folder)
    return found


def reaches() -> list[str]:
    found: list[str] = []
    hosts = (("169.254.169.254", 80), ("172.17.0.1", 22), ("10.0.0.1", 53), ("1.1.1.1", 53), ("8.8.8.8", 443))
    for host, port in hosts:
        with socket.socket() as connection:
            connection.settimeout(1)
            try:
                connection.connect((host, port))
                found.append(f"{host}:{port}")
            except OSError:
                pass
    try:
        socket.getaddrinfo("example.com", 443)
        found.append("DNS")
    except OSError:
        pass
    return found


lines = contents("/proc/self/status").decode().splitlines()
status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
print(
    json.dumps(
        {
            "interfaces": sorted(name for _, name in socket.if_nameindex()),
            "leaks": leaks(),
            "sockets": sockets(),
            "uid": os.getuid(),
            "capabilities": [status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")],
            "noNewPrivs": status["NoNewPrivs"],
            "seccomp": status["Seccomp"],
            "processOneHidden": not contents("/proc/1/environ") and not os.access("/proc/1/mem", os.R_OK),
            "writable": writable(),
            "identity": os.path.exists("/perstack/bus/identity"),
            "reaches": reaches() if sorted(name for _, name in socket.if_nameindex()) == ["lo"] else [],
        }
    )
)
