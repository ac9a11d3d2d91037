"""What a Job is to do, checked as far as it can be before anything starts."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from expert_runner.contract.experts import Expert, McpSseSkill, McpStdioSkill
from expert_runner.contract.model import Model
from expert_runner.contract.tools import BASE_SKILL
from orchestrator.errors import ConfigError, UnsupportedError
from orchestrator.model.provider import ProviderConfig
from orchestrator.model.reasoning import Effort

DEFAULT_WORKSPACE = "workspace"

ReasoningBudget = Effort | int
Runtime = Literal["docker", "local"]


class InteractiveAnswer(Model):
    """The user's answer to an interactive tool. `tool_call_id` says to which call; None: to the one that waits."""

    text: str
    tool_call_id: str | None = None


class RunInput(Model):
    """What the coordinator is asked or told: a query, or the answer it waits for."""

    text: str | None = Field(default=None, min_length=1)
    interactive_tool_call_result: InteractiveAnswer | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.text is None) == (self.interactive_tool_call_result is None):
            raise ValueError("give either text or interactiveToolCallResult")
        return self


class RunSetting(Model):
    """A Job, as :func:`orchestrator.run` takes it. In JSON and in mappings the names are camelCase.

    Attributes:
        expert_key: the coordinator; one of `experts`. None, where a Job is continued: the Job's.
        input: the query; where a Job is continued, a further one, or the answer it waits for, or None.
        experts: all Experts by key.
        provider_config: the model's provider; its key comes from `environment`, never from here.
        model: the provider's name of the model; None: the provider's default.
        reasoning_budget: effort, or tokens.
        max_steps: steps of all Runs together; None: no limit.
        max_retries: further attempts for each generation.
        timeout: milliseconds a generation may take.
        runtime: where Runs live.
        workspace: the folder they share; made if it does not exist.
        storage: the folder of the history; None: `$PERSTACK_STORAGE_PATH`, else `./perstack`.
        job_id: of a new Job; None: any.
        continue_latest: go on with the Job that was begun or continued last.
        continue_job: go on with the Job with this id.
        resume_from: with `continue_job`: go on from this checkpoint of its coordinator's, as a branch.
        environment: where provider keys are looked up; None: this process's environment.
        env: variables for commands in the sandboxes.
        secret_files: files with keys; they are masked in sandboxes whose workspace holds them.
        image: the image of Docker sandboxes; None: the one of this version.
    """

    expert_key: str | None = None
    input: RunInput | None = None
    experts: dict[str, Expert]
    provider_config: ProviderConfig = ProviderConfig()
    model: str | None = None
    reasoning_budget: ReasoningBudget | None = None
    max_steps: int | None = Field(default=None, ge=1)
    max_retries: int = Field(default=5, ge=0)
    timeout: int = Field(default=60_000, ge=1)
    runtime: Runtime = "docker"
    workspace: Path = Path(DEFAULT_WORKSPACE)
    storage: Path | None = None
    job_id: str | None = None
    continue_latest: bool = False
    continue_job: str | None = None
    resume_from: str | None = None
    environment: dict[str, str] | None = Field(default=None, repr=False)
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    secret_files: tuple[Path, ...] = ()
    image: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_experts(cls, data: Any) -> Any:
        """Let each Expert be given without its key, as it stands in `perstack.toml`."""
        if isinstance(data, Mapping) and isinstance(data.get("experts"), Mapping):
            experts = {
                key: {"key": key, **value} if isinstance(value, Mapping) else value
                for key, value in data["experts"].items()
            }
            return {**data, "experts": experts}
        return data

    @model_validator(mode="after")
    def _says_which_job(self) -> Self:
        if self.continue_latest and self.continue_job is not None:
            raise ValueError("--continue and --continue-job say different things: give one of them")
        if self.resume_from is not None and self.continue_job is None:
            raise ValueError("--resume-from needs --continue-job: which Job's checkpoint is it?")
        if self.continues and self.job_id is not None:
            raise ValueError("--job-id is for a new Job: leave it out, or give the id with --continue-job")
        if not self.continues and (self.expert_key is None or self.input is None or self.input.text is None):
            raise ValueError("a new Job needs an Expert and a query")
        return self

    @property
    def continues(self) -> bool:
        """Whether an earlier Job goes on."""
        return self.continue_latest or self.continue_job is not None

    @property
    def provider_environment(self) -> Mapping[str, str]:
        return os.environ if self.environment is None else self.environment


def as_setting(setting: "RunSetting | Mapping[str, Any]") -> RunSetting:
    """`setting` as a :class:`RunSetting`.

    Raises:
        ConfigError: it is not one; the text names every field that is wrong.
    """
    if isinstance(setting, RunSetting):
        return setting
    try:
        return RunSetting.model_validate(setting)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)[:20]
        )
        raise ConfigError(f"the setting is not valid: {problems}") from None


def check_experts(experts: Mapping[str, Expert], key: str) -> None:
    """See that the coordinator `key`, and all that it may delegate to, are known and supported.

    Raises:
        ConfigError: an Expert is unknown.
        UnsupportedError: an Expert that may run declares a skill this version does not have.
    """
    reachable: dict[str, Expert] = {}
    waiting: list[tuple[str, str | None]] = [(key, None)]
    while waiting:
        wanted, caller = waiting.pop()
        if wanted in reachable:
            continue
        expert = experts.get(wanted)
        if expert is None:
            known = ", ".join(sorted(experts)) or "none"
            of = f", a delegate of {caller}," if caller else ""
            raise ConfigError(f"there is no Expert {wanted!r}{of} among those declared: {known}")
        reachable[wanted] = expert
        waiting += [(delegate, wanted) for delegate in expert.delegates]
    _check_skills(reachable.values())


def _check_skills(experts: Iterable[Expert]) -> None:
    for expert in experts:
        for name, skill in expert.skills.items():
            if name != BASE_SKILL and isinstance(skill, McpStdioSkill | McpSseSkill):
                raise UnsupportedError(
                    f"Expert {expert.key}: skill {name!r} is an {skill.type}, which this version cannot run yet: "
                    "remove the skill, or do what it does with the base skill's tools"
                )
