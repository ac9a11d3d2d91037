"""Run one sandbox as an ordinary user, in a process of its own: `ordinary_user.py FOLDER IMAGE UID GID GROUP`.

GROUP is the user's only other group: the one that may use the engine's socket, or not.

Everything is imported before the change of user, who need not be able to read this checkout.
"""

import asyncio
import encodings.idna  # noqa: F401 - imported by sockets, later
import json
import os
import sys
from pathlib import Path

import docker

from orchestrator.errors import SandboxError
from tests.sandbox.docker_lab import Lab

WRITE = "open('/workspace/made', 'w').write('x'); import os; print(os.getuid(), os.stat('/workspace').st_uid)"


async def main(folder: Path, image: str, uid: int, gid: int, socket_group: int) -> None:
    engine = docker.from_env()
    if os.geteuid() == 0:
        os.setgroups([socket_group])
        os.setgid(gid)
        os.setuid(uid)
    lab = Lab(folder, image, engine)
    lab.workspace.mkdir()
    lab.runtime_folder.mkdir()
    backend = lab.backend()
    try:
        await backend.open()
        sandbox = await backend.start(lab.spec())
        said = await lab.inside(sandbox, WRITE)
        controls = await backend.in_force(sandbox)
        owner = backend.owner
    except SandboxError as error:
        print(json.dumps({"error": str(error)}))
        return
    finally:
        await backend.close()
        engine.close()
    print(
        json.dumps(
            {
                "said": said.text.split(),
                "user": controls["user"],
                "owner": [owner.uid, owner.gid],
                "leftovers": lab.leftovers(),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])))
