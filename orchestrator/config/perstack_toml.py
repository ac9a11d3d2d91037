"""`perstack.toml`: found, read and checked, so that whatever is wrong with it is said before anything starts."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from expert_runner.contract.experts import Expert
from expert_runner.contract.model import Model
from orchestrator.config.consistency import check_experts
from orchestrator.config.locate import Locator
from orchestrator.config.problems import Problem, from_validation, report
from orchestrator.config.reading import read_text
from orchestrator.errors import ConfigError
from orchestrator.model.provider import ProviderConfig, check_base_url
from orchestrator.model.reasoning import Effort

FILE_NAME = "perstack.toml"

_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")


class PerstackConfig(Model):
    """The contents of a `perstack.toml`. What is not set there is None: options and defaults decide.

    Attributes:
        model: the provider's name of the model.
        provider: who serves it.
        reasoning_budget: effort, or tokens.
        runtime: where Runs live.
        max_steps: steps of all Runs of a Job together.
        max_retries: further attempts for each generation.
        timeout: milliseconds a generation may take.
        env_path: env files, relative to this file.
        perstack_api_base_url: the address of an API server.
        experts: all Experts by key.
    """

    model: Annotated[str, Field(min_length=1)] | None = None
    provider: ProviderConfig | None = None
    reasoning_budget: Effort | Annotated[int, Field(strict=True, ge=0)] | None = None
    runtime: Literal["docker", "local"] | None = None
    max_steps: Annotated[int, Field(strict=True, ge=1)] | None = None
    max_retries: Annotated[int, Field(strict=True, ge=0)] | None = None
    timeout: Annotated[int, Field(strict=True, ge=1)] | None = None
    env_path: tuple[str, ...] | None = None
    perstack_api_base_url: Annotated[str, AfterValidator(check_base_url)] | None = None
    experts: dict[str, Expert] = Field(default={})


def find_config(start: Path) -> Path:
    """The nearest `perstack.toml`: in `start` or the first of its parents that has one.

    Raises:
        ConfigError: there is none.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        path = folder / FILE_NAME
        if path.is_file():
            return path
    raise ConfigError(f"there is no {FILE_NAME} in {start} or any folder above it: write one, or name it with --config")


def load_config(path: Path) -> PerstackConfig:
    """The configuration in the file `path`.

    Raises:
        ConfigError: it cannot be read or used; the text has a line for each problem, with file, line and key.
    """
    file = _shown(path)
    try:
        text = read_text(path, file)
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file") from None
    data = _parse(text, file)
    config, problems = _validate(data)
    if config is None or problems:
        raise report(problems, Locator(text), file)
    return config


def _validate(data: dict[str, Any]) -> tuple[PerstackConfig | None, list[Problem]]:
    named, problems = _with_keys(data)
    config = None
    try:
        # As in the file: the names of attributes are no other way to write the keys.
        config = PerstackConfig.model_validate(named, by_alias=True, by_name=False)
        experts = config.experts
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        problems += from_validation(details, data, PerstackConfig.model_json_schema())
        experts = _usable_experts(named)
    declared = data.get("experts")
    return config, problems + check_experts(experts, declared if isinstance(declared, dict) else {})


def _with_keys(data: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """`data` with each Expert's key in the Expert, where the contract has it."""
    experts = data.get("experts")
    if not isinstance(experts, dict):
        return data, []
    named = {key: {**table, "key": key} if isinstance(table, dict) else table for key, table in experts.items()}
    keyed = [key for key, table in experts.items() if isinstance(table, dict) and "key" in table]
    problems = [Problem(("experts", key, "key"), "unknown key; an Expert's key is its table's name") for key in keyed]
    return {**data, "experts": named}, problems


def _usable_experts(named: dict[str, Any]) -> dict[str, Expert]:
    """The Experts as far as they are valid, so that one problem hides no other."""
    tables = named.get("experts")
    usable = {}
    for key, table in tables.items() if isinstance(tables, dict) else ():
        try:
            usable[key] = _usable(table)
        except ValidationError:
            continue
    return usable


def _usable(table: Any) -> Expert:
    """The Expert in `table` without the fields and the skills that are not valid."""
    try:
        return Expert.model_validate(table, by_alias=True, by_name=False)
    except ValidationError as error:
        if not isinstance(table, dict):
            raise
        wrong = [problem["loc"] for problem in error.errors(include_url=False, include_input=False)]
    skills = table.get("skills")
    fields = {name: value for name, value in table.items() if name not in {loc[0] for loc in wrong}}
    if isinstance(skills, dict):
        broken = {loc[1] for loc in wrong if loc[0] == "skills"}
        fields["skills"] = {name: skill for name, skill in skills.items() if name not in broken}
    return Expert.model_validate({"instruction": "to be written", **fields}, by_alias=True, by_name=False)


def _parse(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply") from None
    except ValueError as error:
        message = str(error)
        position = _POSITION.search(message)
        if position is None:
            raise ConfigError(f"{file}: not TOML: {message}") from None
        line = position["line"] or text.count("\n") + 1
        column = f":{position['column']}" if position["column"] else ""
        raise ConfigError(f"{file}:{line}{column}: not TOML: {message[: position.start()]}") from None


def _shown(path: Path) -> str:
    """`path` as short as it can be said from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
