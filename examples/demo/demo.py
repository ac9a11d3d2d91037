"""The demo: a real Job in real containers against a scripted model, with a timeline of what each Expert's container
did.

Run it by `make demo`, or `python examples/demo/demo.py [--runtime local]`.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.scripted_model import ScriptedModel, load_script

HERE = Path(__file__).parent
MAX_LINE = 64 * 1024 * 1024
QUERY = "Write the report of the third quarter."


async def main(options: Sequence[str]) -> int:
    folder = Path(tempfile.mkdtemp(prefix="perstack-demo-"))
    workspace = folder / "workspace"
    shutil.copytree(HERE / "workspace", workspace)
    async with ScriptedModel(load_script(HERE / "script.toml")) as model:
        environment = {
            **os.environ,
            "OPENAI_BASE_URL": model.url,
            "OPENAI_API_KEY": "the-scripted-model-needs-none",
            "PERSTACK_STORAGE_PATH": str(folder / "perstack"),
        }
        command = [
            *(sys.executable, "-m", "orchestrator.cli.main", "run"),
            *("--config", str(HERE / "perstack.toml"), "--workspace", str(workspace), *options),
            *("quarter-report", QUERY),
        ]
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.PIPE, limit=MAX_LINE
        )
        timeline = Timeline()
        async for event in _events(process):
            timeline.show(event)
        code = await process.wait()
    print(f"\nexit code {code}\n")
    if code == 0:
        print(f"The workspace with both reports:  {workspace}")
        print(f"The history, one log a Run:       {timeline.history(folder)}")
        print("\nThe same with a real provider, in a folder of your own:\n")
        print(f"  cp -r {HERE} mine && cd mine    # then set model and providerName in perstack.toml, say")
        print('  model = "claude-sonnet-4-5"     # with  providerName = "anthropic"')
        print("  export ANTHROPIC_API_KEY=…")
        print(f'  perstack run quarter-report "{QUERY}"')
    return code


async def _events(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    while process.stdout is not None and (line := await process.stdout.readline()):
        yield json.loads(line)


class Timeline:
    """One line for each thing worth seeing, with the seconds since the Job began and the Run it happened in."""

    def __init__(self) -> None:
        self._began: int | None = None
        self._experts: dict[str, str] = {}
        self._containers: dict[str, str] = {}
        self._job = ""

    def show(self, event: dict[str, Any]) -> None:
        self._job = event["jobId"]
        self._began = self._began or event["timestamp"]
        run = event["runId"]
        if event["type"] == "initializeRuntime":
            self._experts[run] = event["expertName"]
        text = self._text(event)
        if text:
            seconds = (event["timestamp"] - self._began) / 1000
            container = self._containers.get(run, "")[:12]
            print(f"{seconds:7.2f} s  {container:12}  {self._experts[run]:16}  {text}", flush=True)

    def history(self, folder: Path) -> Path:
        return folder / "perstack" / "jobs" / self._job / "runs"

    def _text(self, event: dict[str, Any]) -> str | None:
        match event:
            case {"type": "initializeRuntime", "query": query}:
                return f"asked: {query}"
            case {"type": "dockerContainerStatus", "status": status, **rest}:
                self._containers[event["runId"]] = rest.get("containerId") or self._containers.get(event["runId"], "")
                return f"container {status}"
            case {"type": "callTools" | "callDelegate", "toolCalls": calls}:
                return "calls " + ", ".join(_call(call) for call in calls)
            case {"type": "resolveToolResults", "toolResults": results}:
                wrong = [result["toolName"] for result in results if result.get("isError")]
                return f"{len(results)} results" + (f", failed: {', '.join(wrong)}" if wrong else "")
            case {"type": "stopRunByDelegate"}:
                return "waits for its delegates"
            case {"type": "resumeToolCalls", "partialToolResults": results}:
                return f"goes on with {len(results)} delegates' results"
            case {"type": "retry", "reason": reason}:
                return f"retry: {reason}"
            case {"type": "completeRun", "text": text}:
                return "completed: " + str(text).strip().replace("\n", "\n" + " " * 43)
            case {"type": "stopRunByError", "error": error}:
                return f"{error['name']}: {error['message']}"
        return None


def _call(call: dict[str, Any]) -> str:
    args = json.dumps(call.get("args", {}), ensure_ascii=False)
    return f"{call['toolName']} {args if len(args) <= 60 else args[:57] + '…'}"


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
