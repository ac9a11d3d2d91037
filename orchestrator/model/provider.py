"""Providers: how they are configured, where their keys are, and what litellm has to be told to reach them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from expert_runner.contract.model import Model
from orchestrator.errors import ConfigError, MissingKeyError, UnsupportedError


class ProviderName(StrEnum):
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    OPENAI = "openai"
    OLLAMA = "ollama"
    AZURE_OPENAI = "azure-openai"
    AMAZON_BEDROCK = "amazon-bedrock"
    GOOGLE_VERTEX = "google-vertex"
    DEEPSEEK = "deepseek"


def check_base_url(value: str) -> str:
    """`value` without a slash at its end.

    Raises:
        ValueError: it is not an address that keys may be sent to.
    """
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"not an address: {error}") from None
    if parts.username is not None or parts.password is not None:
        # The address itself is not repeated: it holds a secret.
        raise ValueError("an address holds no user and password: use `headers` or the provider's key variable")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        raise ValueError(f"{value!r} is neither an https:// address nor an http:// address of this machine (loopback)")
    if parts.query or parts.fragment:
        raise ValueError(f"{value!r} has a query or a fragment: give the address alone")
    return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ProviderSetting(Model):
    """`[provider.setting]`. Which of them mean something depends on the provider.

    `name` is the label some clients give an OpenAI-compatible server; it changes nothing here.
    """

    base_url: Annotated[str, AfterValidator(check_base_url)] | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    organization: str | None = None
    project: str | None = None
    name: str | None = None
    resource_name: str | None = None
    api_version: str | None = None
    use_deployment_based_urls: bool = False
    region: str | None = None
    location: str | None = None


class ProviderConfig(Model):
    """`[provider]`."""

    provider_name: ProviderName = ProviderName.ANTHROPIC
    setting: ProviderSetting = ProviderSetting()


_DEFAULT_MODELS = {ProviderName.ANTHROPIC: "claude-sonnet-4-5"}

_KEYS = {
    ProviderName.ANTHROPIC: "ANTHROPIC_API_KEY",
    ProviderName.GOOGLE: "GOOGLE_GENERATIVE_AI_API_KEY",
    ProviderName.OPENAI: "OPENAI_API_KEY",
    ProviderName.AZURE_OPENAI: "AZURE_API_KEY",
    ProviderName.DEEPSEEK: "DEEPSEEK_API_KEY",
}
_BASE_URLS = {
    ProviderName.ANTHROPIC: "ANTHROPIC_BASE_URL",
    ProviderName.GOOGLE: "GOOGLE_GENERATIVE_AI_BASE_URL",
    ProviderName.OPENAI: "OPENAI_BASE_URL",
    ProviderName.OLLAMA: "OLLAMA_BASE_URL",
    ProviderName.AZURE_OPENAI: "AZURE_BASE_URL",
    ProviderName.AMAZON_BEDROCK: "AMAZON_BEDROCK_BASE_URL",
    ProviderName.GOOGLE_VERTEX: "GOOGLE_VERTEX_BASE_URL",
    ProviderName.DEEPSEEK: "DEEPSEEK_BASE_URL",
}
_DEFAULT_BASE_URLS = {
    ProviderName.ANTHROPIC: "https://api.anthropic.com",
    ProviderName.GOOGLE: "https://generativelanguage.googleapis.com/v1beta",
    ProviderName.OPENAI: "https://api.openai.com/v1",
    ProviderName.OLLAMA: "http://127.0.0.1:11434",
    ProviderName.DEEPSEEK: "https://api.deepseek.com",
}
LITELLM_PREFIXES = {
    ProviderName.ANTHROPIC: "anthropic",
    ProviderName.GOOGLE: "gemini",
    ProviderName.OPENAI: "openai",
    ProviderName.OLLAMA: "ollama_chat",
    ProviderName.AZURE_OPENAI: "azure",
    ProviderName.AMAZON_BEDROCK: "bedrock",
    ProviderName.GOOGLE_VERTEX: "vertex_ai",
    ProviderName.DEEPSEEK: "deepseek",
}
_PACKAGES = {ProviderName.AMAZON_BEDROCK: "boto3", ProviderName.GOOGLE_VERTEX: "google.auth"}

_AWS_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_BEARER_TOKEN_BEDROCK": "api_key",
}

KEY_NAMES: frozenset[str] = frozenset(
    {
        *_KEYS.values(),
        *_AWS_CREDENTIALS,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_SECURITY_TOKEN",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AZURE_AD_TOKEN",
        "AZURE_CLIENT_SECRET",
        "AZURE_OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CREDENTIALS",
        "GOOGLE_VERTEX_API_KEY",
        "OLLAMA_API_KEY",
    }
)
"""Variables that hold or lead to a provider's secret: none of them may enter a sandbox."""


def default_model(provider: ProviderName) -> str | None:
    """The model that is used where none is named; None: one has to be."""
    return _DEFAULT_MODELS.get(provider)


@dataclass(frozen=True, slots=True)
class Target:
    """A model at a provider: everything a request needs. Secrets are in no representation of it.

    `litellm_model` is the model as litellm spells it and `options` what its calls are given besides.
    `base_url` is the address users know, if there is one; `key_name` names the variable that the key came from.
    """

    provider: ProviderName
    model: str
    litellm_model: str
    base_url: str | None
    key_name: str | None
    options: Mapping[str, Any] = field(repr=False)
    secrets: frozenset[str] = field(repr=False)

    def scrub(self, text: str) -> str:
        """`text` without this target's secrets."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return text


def resolve(provider: ProviderConfig, model: str, env: Mapping[str, str]) -> Target:
    """How to reach `model` with what `env` (the environment and the env files) has.

    Raises:
        MissingKeyError: a key or another necessary variable is not set.
        ConfigError: an address in `env` cannot be used.
        UnsupportedError: the provider needs a package that is not installed.
    """
    name, setting = provider.provider_name, provider.setting
    package = _PACKAGES.get(name)
    if package is not None and not _is_installed(package):
        raise UnsupportedError(
            f"the provider {name} needs the Python package {package.replace('.', '-')}: install it beside perstack"
        )
    options: dict[str, Any] = {}
    headers = dict(setting.headers)
    base_url = setting.base_url or _base_url_from(env, _BASE_URLS[name])
    key_name = _KEYS.get(name)
    if key_name is not None:
        options["api_key"] = _need(env, key_name, f"the key of the provider {name}")
    match name:
        case ProviderName.OPENAI:
            if setting.organization:
                headers["OpenAI-Organization"] = setting.organization
            if setting.project:
                headers["OpenAI-Project"] = setting.project
        case ProviderName.ANTHROPIC:
            base_url = base_url and base_url.removesuffix("/v1")
        case ProviderName.OLLAMA:
            base_url = base_url and base_url.removesuffix("/api")
            if env.get("OLLAMA_API_KEY"):
                options["api_key"], key_name = env["OLLAMA_API_KEY"], "OLLAMA_API_KEY"
        case ProviderName.AZURE_OPENAI:
            base_url = _azure_base_url(base_url, setting, env)
            options["api_version"] = setting.api_version or (
                "2024-10-21" if setting.use_deployment_based_urls else "v1"
            )
        case ProviderName.AMAZON_BEDROCK:
            options |= _aws_options(setting, env)
            key_name = next((variable for variable in _AWS_CREDENTIALS if env.get(variable)), None)
        case ProviderName.GOOGLE_VERTEX:
            options |= _vertex_options(setting, env)
            key_name = "GOOGLE_APPLICATION_CREDENTIALS" if env.get("GOOGLE_APPLICATION_CREDENTIALS") else None
        case _:
            pass
    base_url = base_url or _DEFAULT_BASE_URLS.get(name)
    if base_url is not None:
        options["api_base"] = base_url
    if headers:
        options["extra_headers"] = headers
    secret_options = ("api_key", *_AWS_CREDENTIALS.values())
    secrets = {*setting.headers.values(), *(str(options[key]) for key in secret_options if key in options)}
    return Target(
        provider=name,
        model=model,
        litellm_model=f"{LITELLM_PREFIXES[name]}/{model}",
        base_url=base_url,
        key_name=key_name,
        options=options,
        # Shorter values are no secrets worth hiding, and taking them out would garble any text.
        secrets=frozenset(secret for secret in secrets if len(secret) >= 4),
    )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _need(env: Mapping[str, str], variable: str, what: str) -> str:
    # A key that was pasted with its line break would make an invalid header.
    value = env.get(variable, "").strip()
    if not value:
        raise MissingKeyError(
            f"{variable} is not set: it holds {what}. Set it in the environment or in an env file (--env-path)"
        )
    return value


def _base_url_from(env: Mapping[str, str], variable: str) -> str | None:
    value = env.get(variable)
    if not value:
        return None
    try:
        return check_base_url(value)
    except ValueError as error:
        raise ConfigError(f"{variable}: {error}") from None


def _azure_base_url(base_url: str | None, setting: ProviderSetting, env: Mapping[str, str]) -> str:
    if base_url:
        return base_url.removesuffix("/v1").removesuffix("/openai")
    resource = setting.resource_name or env.get("AZURE_RESOURCE_NAME")
    if not resource:
        raise MissingKeyError(
            "the Azure resource is not known: set resourceName or baseUrl in [provider.setting], or AZURE_RESOURCE_NAME"
        )
    return f"https://{resource}.openai.azure.com"


def _aws_options(setting: ProviderSetting, env: Mapping[str, str]) -> dict[str, Any]:
    """Without credentials in `env`, AWS's own chain goes on: profiles in ~/.aws and roles of the machine."""
    options: dict[str, Any] = {option: env[name] for name, option in _AWS_CREDENTIALS.items() if env.get(name)}
    if env.get("AWS_ACCESS_KEY_ID") and not env.get("AWS_SECRET_ACCESS_KEY"):
        raise MissingKeyError("AWS_SECRET_ACCESS_KEY is not set: it belongs to the AWS_ACCESS_KEY_ID that is")
    if env.get("AWS_PROFILE"):
        options["aws_profile_name"] = env["AWS_PROFILE"]
    region = setting.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    if region:
        options["aws_region_name"] = region
    elif "aws_profile_name" not in options:
        raise MissingKeyError("AWS_REGION is not set: set it, or region in [provider.setting]")
    return options


def _vertex_options(setting: ProviderSetting, env: Mapping[str, str]) -> dict[str, Any]:
    """Without a credentials file, Google's default credentials are used; those do not always name a project."""
    options: dict[str, Any] = {}
    project = setting.project or env.get("GOOGLE_VERTEX_PROJECT") or env.get("GOOGLE_CLOUD_PROJECT")
    location = setting.location or env.get("GOOGLE_VERTEX_LOCATION") or env.get("GOOGLE_CLOUD_LOCATION")
    credentials = env.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not project and not credentials:
        raise MissingKeyError(
            "GOOGLE_APPLICATION_CREDENTIALS is not set: set it to a service account's file, or set project in "
            "[provider.setting] (or GOOGLE_VERTEX_PROJECT) to use Google's default credentials"
        )
    if project:
        options["vertex_project"] = project
    if location:
        options["vertex_location"] = location
    if credentials:
        options["vertex_credentials"] = credentials
    return options
