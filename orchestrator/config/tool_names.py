"""Names of tools: those of the base skill, and the names under which delegates are offered to the model."""

import re
from hashlib import sha256

BASE_TOOLS = frozenset(
    {
        "appendTextFile",
        "attemptCompletion",
        "clearTodo",
        "createDirectory",
        "deleteDirectory",
        "deleteFile",
        "editTextFile",
        "exec",
        "getFileInfo",
        "healthCheck",
        "listDirectory",
        "moveFile",
        "readImageFile",
        "readPdfFile",
        "readTextFile",
        "todo",
        "writeTextFile",
    }
)
"""The base skill's tools: names that `pick` and `omit` may name, and that no other tool of an Expert may have."""

MAX_TOOL_NAME = 64
"""Characters of a tool's name that every provider takes."""


def delegate_tool_name(key: str) -> str:
    """The tool's name for the Expert `key`: `@scope/name@1.0.0` is offered as `scope-name`.

    Two keys may give one name (two versions of an Expert, for instance); an Expert that delegates to both is refused
    when its configuration is loaded.
    """
    name = key.rsplit("@", 1)[0] if "@" in key[1:] else key
    plain = re.sub(r"[^a-zA-Z0-9_-]+", "-", name).strip("-")
    if len(plain) <= MAX_TOOL_NAME:
        return plain
    # Cut alone, long names that begin alike would be one.
    digest = sha256(name.encode()).hexdigest()[:8]
    return f"{plain[: MAX_TOOL_NAME - len(digest) - 1]}-{digest}"
