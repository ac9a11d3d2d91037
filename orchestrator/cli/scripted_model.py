"""`perstack scripted-model`: a model for trying things out without a provider or a key."""

import asyncio
import signal
from pathlib import Path

import click


@click.command("scripted-model")
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), show_default=True, help="Port; 0 takes a free one.")
def scripted_model(script: Path, host: str, port: int) -> None:
    """Serve a model that answers from SCRIPT, a TOML (or .json) file, until Ctrl-C.

    It speaks OpenAI chat completions and needs no key, so an Expert can be tried out without a provider.
    """
    # Imported here because every other command does without a web server.
    from orchestrator.scripted_model import ScriptedModel, ScriptError, load_script

    async def serve() -> None:
        stop = asyncio.Event()
        for stop_signal in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(stop_signal, stop.set)
        async with ScriptedModel(loaded, host=host, port=port) as model:
            click.echo(f"listening on {model.url}")
            click.echo(_usage(model.url))
            await stop.wait()

    try:
        loaded = load_script(script)
    except ScriptError as error:
        raise click.BadParameter(str(error), param_hint="SCRIPT") from None
    try:
        asyncio.run(serve())
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def _usage(url: str) -> str:
    return f"""
Put this into perstack.toml:

    model = "scripted"
    [provider]
    providerName = "openai"
    [provider.setting]
    baseUrl = "{url}"

and run with any key: OPENAI_API_KEY=none perstack run EXPERT QUERY"""
