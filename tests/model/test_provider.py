"""Providers: configuration, keys and addresses."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.errors import ConfigError, MissingKeyError, UnsupportedError
from orchestrator.model import provider as module
from orchestrator.model.provider import (
    KEY_NAMES,
    ProviderConfig,
    ProviderName,
    Target,
    check_base_url,
    default_model,
    resolve,
)

KEYS = {
    "ANTHROPIC_API_KEY": "key-of-anthropic",
    "OPENAI_API_KEY": "key-of-openai",
    "GOOGLE_GENERATIVE_AI_API_KEY": "key-of-google",
    "AZURE_API_KEY": "key-of-azure",
    "DEEPSEEK_API_KEY": "key-of-deepseek",
    "AWS_ACCESS_KEY_ID": "AKIA-id",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "AWS_REGION": "eu-west-1",
    "GOOGLE_VERTEX_PROJECT": "a-project",
    "AZURE_RESOURCE_NAME": "resource",
}


@pytest.fixture(autouse=True)
def all_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_installed", lambda package: True)


def target(name: str, env: dict[str, str] | None = None, model: str = "m", **setting: Any) -> Target:
    config = ProviderConfig.model_validate({"providerName": name, "setting": setting})
    return resolve(config, model, KEYS if env is None else env)


def test_the_default_is_anthropic_with_its_default_model() -> None:
    assert ProviderConfig().provider_name is ProviderName.ANTHROPIC
    assert default_model(ProviderName.ANTHROPIC) == "claude-sonnet-4-5"


@pytest.mark.parametrize("name", [name for name in ProviderName if name is not ProviderName.ANTHROPIC])
def test_the_other_providers_have_no_default_model(name: ProviderName) -> None:
    assert default_model(name) is None


@pytest.mark.parametrize(
    ("name", "spelled", "key"),
    [
        ("anthropic", "anthropic/m", "key-of-anthropic"),
        ("google", "gemini/m", "key-of-google"),
        ("openai", "openai/m", "key-of-openai"),
        ("azure-openai", "azure/m", "key-of-azure"),
        ("deepseek", "deepseek/m", "key-of-deepseek"),
        ("ollama", "ollama_chat/m", None),
        ("amazon-bedrock", "bedrock/m", None),
        ("google-vertex", "vertex_ai/m", None),
    ],
)
def test_every_provider_resolves_with_its_key(name: str, spelled: str, key: str | None) -> None:
    found = target(name)
    assert found.litellm_model == spelled
    assert found.options.get("api_key") == key


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("anthropic", "ANTHROPIC_API_KEY"),
        ("google", "GOOGLE_GENERATIVE_AI_API_KEY"),
        ("openai", "OPENAI_API_KEY"),
        ("azure-openai", "AZURE_API_KEY"),
        ("deepseek", "DEEPSEEK_API_KEY"),
        ("amazon-bedrock", "AWS_REGION"),
        ("google-vertex", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_missing_key_is_named(name: str, variable: str, value: str | None) -> None:
    if value is not None and name in ("amazon-bedrock", "google-vertex"):
        value = ""
    with pytest.raises(MissingKeyError, match=variable) as raised:
        target(name, {} if value is None else {variable: value})
    assert raised.value.exit_code == 2


def test_a_key_loses_the_line_break_it_was_pasted_with() -> None:
    assert target("openai", {"OPENAI_API_KEY": "key-123\n"}).options["api_key"] == "key-123"


def test_ollama_needs_no_key_and_takes_one() -> None:
    assert "api_key" not in target("ollama", {}).options
    assert target("ollama", {"OLLAMA_API_KEY": "secret"}).options["api_key"] == "secret"


def test_no_representation_of_a_target_shows_a_secret() -> None:
    found = target("openai", headers={"X-Token": "header-secret"}, organization="org")
    for shown in (repr(found), str(found), f"{found}"):
        assert "key-of-openai" not in shown
        assert "header-secret" not in shown


def test_scrubbing_takes_out_keys_and_headers_and_nothing_else() -> None:
    found = target("openai", headers={"X-Token": "header-secret", "X-Flag": "1"})
    assert found.scrub("1: bad key-of-openai / header-secret") == "1: bad [secret] / [secret]"


def test_scrubbing_leaves_no_end_of_a_secret_that_begins_like_another() -> None:
    found = target("openai", {"OPENAI_API_KEY": "abcd"}, headers={"X-Token": "abcd-more"})
    assert found.scrub("abcd-more") == "[secret]"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "http://127.0.0.1:8000/v1",
        "http://localhost/v1",
        "http://[::1]:1",
        "http://127.9.9.9",
    ],
)
def test_addresses_are_https_or_on_this_machine(url: str) -> None:
    assert check_base_url(url + "/") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "ftp://127.0.0.1",
        "api.example.com",
        "https://",
        "http://[::1",
        "https://a.example:99999",
        "https://a.example/v1?key=x",
        "",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"https://|address"):
        check_base_url(url)


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValidationError, match="no user and password") as raised:
        target("openai", baseUrl="https://me:hunter2@a.example")
    assert "hunter2" not in str(raised.value.errors(include_input=False))


@pytest.mark.parametrize(
    ("name", "variable", "expected"),
    [
        ("anthropic", "ANTHROPIC_BASE_URL", "https://a.example/x"),
        ("google", "GOOGLE_GENERATIVE_AI_BASE_URL", "https://a.example/x/v1"),
        ("openai", "OPENAI_BASE_URL", "https://a.example/x/v1"),
        ("ollama", "OLLAMA_BASE_URL", "https://a.example/x/v1"),
        ("azure-openai", "AZURE_BASE_URL", "https://a.example/x"),
        ("amazon-bedrock", "AMAZON_BEDROCK_BASE_URL", "https://a.example/x/v1"),
        ("google-vertex", "GOOGLE_VERTEX_BASE_URL", "https://a.example/x/v1"),
        ("deepseek", "DEEPSEEK_BASE_URL", "https://a.example/x/v1"),
    ],
)
def test_the_address_can_come_from_the_environment(name: str, variable: str, expected: str) -> None:
    env = KEYS | {variable: "https://a.example/x/v1/"}
    assert target(name, env).options["api_base"] == expected
    assert target(name, env, baseUrl="https://configured.example").options["api_base"] == "https://configured.example"


def test_a_wrong_address_in_the_environment_names_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_BASE_URL: .* is neither"):
        target("openai", KEYS | {"OPENAI_BASE_URL": "http://a.example"})


def test_openai_is_told_organization_and_project() -> None:
    headers = target("openai", organization="org", project="proj", headers={"X-A": "b"}).options["extra_headers"]
    assert headers == {"X-A": "b", "OpenAI-Organization": "org", "OpenAI-Project": "proj"}


def test_azure_is_found_by_resource_name_or_address() -> None:
    assert target("azure-openai", resourceName="mine").options["api_base"] == "https://mine.openai.azure.com"
    assert target("azure-openai").options["api_base"] == "https://resource.openai.azure.com"
    with pytest.raises(MissingKeyError, match="resourceName"):
        target("azure-openai", {"AZURE_API_KEY": "k"})


def test_azure_uses_its_versioned_addresses_unless_told_otherwise() -> None:
    assert target("azure-openai").options["api_version"] == "v1"
    assert target("azure-openai", useDeploymentBasedUrls=True).options["api_version"] == "2024-10-21"
    assert target("azure-openai", apiVersion="2025-01-01").options["api_version"] == "2025-01-01"


def test_bedrock_takes_credentials_by_their_usual_names() -> None:
    options = target("amazon-bedrock", KEYS | {"AWS_SESSION_TOKEN": "session"}, region="us-west-2").options
    assert options == {
        "aws_access_key_id": "AKIA-id",
        "aws_secret_access_key": "aws-secret",
        "aws_session_token": "session",
        "aws_region_name": "us-west-2",
    }
    bearer = target("amazon-bedrock", {"AWS_BEARER_TOKEN_BEDROCK": "bearer", "AWS_DEFAULT_REGION": "r"})
    assert bearer.options["api_key"] == "bearer"
    assert bearer.secrets == {"bearer"}
    assert target("amazon-bedrock", {"AWS_PROFILE": "work"}).options == {"aws_profile_name": "work"}


def test_half_of_bedrocks_credentials_are_not_enough() -> None:
    with pytest.raises(MissingKeyError, match="AWS_SECRET_ACCESS_KEY"):
        target("amazon-bedrock", {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_REGION": "r"})


def test_vertex_takes_project_location_and_credentials() -> None:
    options = target("google-vertex", {"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}, location="europe-west4").options
    assert options == {"vertex_location": "europe-west4", "vertex_credentials": "/key.json"}
    assert target("google-vertex", {}, project="p").options == {"vertex_project": "p"}


def test_a_provider_whose_package_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_installed", lambda package: False)
    with pytest.raises(UnsupportedError, match="google-vertex needs the Python package google-auth"):
        target("google-vertex")
    assert target("openai").litellm_model == "openai/m"


def test_every_variable_that_holds_a_key_may_not_enter_a_sandbox() -> None:
    secrets = {name for name in KEYS if name not in ("AWS_REGION", "GOOGLE_VERTEX_PROJECT", "AZURE_RESOURCE_NAME")}
    assert secrets | {"AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK", "GOOGLE_APPLICATION_CREDENTIALS"} <= KEY_NAMES


def test_unknown_providers_and_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="anthropic"):
        target("anthropics")
    with pytest.raises(ValidationError, match="baseURL"):
        target("openai", baseURL="https://a.example")
