"""Reading `perstack.toml`, and what is said of one that is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config.perstack_toml import PerstackConfig, find_config, load_config
from orchestrator.config.problems import MAX_PROBLEMS
from orchestrator.errors import ConfigError
from orchestrator.model.provider import ProviderConfig

EXPERT = '[experts.lead]\ninstruction = "Lead."\n'

Problems = Callable[[str], list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Callable[[str], PerstackConfig]:
    def load(text: str) -> PerstackConfig:
        path = folder / "perstack.toml"
        path.write_text(text)
        return load_config(path)

    return load


@pytest.fixture
def problems(load: Callable[[str], PerstackConfig]) -> Problems:
    """The lines of the error that a text gives."""

    def problems(text: str) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            load(text)
        assert raised.value.exit_code == 2
        return str(raised.value).splitlines()

    return problems


def test_everything_that_can_be_configured(load: Callable[[str], PerstackConfig]) -> None:
    config = load("""
        model = "claude-sonnet-4-5"
        reasoningBudget = "high"
        runtime = "local"
        maxSteps = 20
        maxRetries = 0
        timeout = 90000
        envPath = [".env", "../keys.env"]
        perstackApiBaseUrl = "https://api.example.com"
        [provider]
        providerName = "azure-openai"
        [provider.setting]
        resourceName = "mine"
        [experts."@scope/lead@1.0.0"]
        version = "1.0.0"
        minRuntimeVersion = "0.1"
        description = "Leads."
        instruction = '''Lead.'''
        delegates = ["writer", "@scope/lead@1.0.0"]
        tags = ["a"]
        [experts."@scope/lead@1.0.0".skills."@perstack/base"]
        type = "mcpStdioSkill"
        command = "npx"
        pick = ["exec", "readPdfFile", "attemptCompletion"]
        omit = ["exec"]
        [experts."@scope/lead@1.0.0".skills.search]
        type = "mcpStdioSkill"
        command = "npx"
        packageName = "search"
        requiredEnv = ["SEARCH_KEY"]
        allowedDomains = ["*.Example.com"]
        lazyInit = true
        [experts."@scope/lead@1.0.0".skills.remote]
        type = "mcpSseSkill"
        endpoint = "https://example.com/sse"
        [experts."@scope/lead@1.0.0".skills.ask]
        type = "interactiveSkill"
        tools.exec = { description = "Ask.", inputJsonSchema = '{"type": "object"}' }
        [experts.writer]
        instruction = "Write."
    """)
    assert config.model == "claude-sonnet-4-5"
    assert config.reasoning_budget == "high"
    assert config.runtime == "local"
    assert (config.max_steps, config.max_retries, config.timeout) == (20, 0, 90_000)
    assert config.env_path == (".env", "../keys.env")
    assert config.perstack_api_base_url == "https://api.example.com"
    assert config.provider == ProviderConfig.model_validate(
        {"providerName": "azure-openai", "setting": {"resourceName": "mine"}}
    )
    assert {key: expert.key for key, expert in config.experts.items()} == {key: key for key in config.experts}
    lead = config.experts["@scope/lead@1.0.0"]
    assert lead.delegates == ("writer", "@scope/lead@1.0.0")
    assert list(lead.skills) == ["@perstack/base", "search", "remote", "ask"]


def test_nothing_has_to_be_configured(load: Callable[[str], PerstackConfig]) -> None:
    assert load("") == PerstackConfig()


def test_a_budget_may_be_tokens(load: Callable[[str], PerstackConfig]) -> None:
    assert load("reasoningBudget = 1024").reasoning_budget == 1024


def test_a_byte_order_mark_is_no_part_of_the_text(load: Callable[[str], PerstackConfig]) -> None:
    assert load("\ufeff" + EXPERT).experts["lead"].instruction == "Lead."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('modle = "x"', "1: modle: unknown key; did you mean model?"),
        ("\nmax_steps = 3", "2: max_steps: unknown key; did you mean maxSteps?"),
        ('model = ""', '1: model: ""; expected a text that is not empty'),
        ("model = 3", "1: model: 3; expected a text that is not empty"),
        ("maxSteps = 0", "1: maxSteps: 0; expected a whole number of at least 1"),
        ("maxSteps = true", "1: maxSteps: true; expected a whole number of at least 1"),
        ("maxRetries = -1", "1: maxRetries: -1; expected a whole number of at least 0"),
        ('timeout = "60"', '1: timeout: "60"; expected a whole number of at least 1'),
        ("timeout = 1979-05-27", "1: timeout: 1979-05-27; expected a whole number of at least 1"),
        ('runtime = "podman"', '1: runtime: "podman"; expected docker or local'),
        (
            'reasoningBudget = "hgih"',
            '1: reasoningBudget: "hgih"; expected none, minimal, low, medium, high or a number of tokens',
        ),
        (
            "reasoningBudget = -1",
            "1: reasoningBudget: -1; expected none, minimal, low, medium, high or a number of tokens",
        ),
        ('envPath = ".env"', '1: envPath: ".env"; expected a list of texts'),
        ("envPath = [1]", "1: envPath[0]: 1; expected text"),
        (
            'provider.providerName = "antropic"',
            (
                '1: provider.providerName: "antropic"; expected anthropic, google, openai, ollama, azure-openai, '
                "amazon-bedrock, google-vertex or deepseek"
            ),
        ),
        ('provider = "openai"', '1: provider: "openai"; expected a table'),
        ("[provider]\nproviderNam = 1", "2: provider.providerNam: unknown key; did you mean providerName?"),
        ("[provider.setting]\nbaseURL = 1", "2: provider.setting.baseURL: unknown key; did you mean baseUrl?"),
        ("experts = 3", '1: experts: 3; expected tables such as [experts."my-expert"]'),
        ("[[experts]]", '1: experts: a list is there; expected tables such as [experts."my-expert"]'),
        ("[experts]\nlead = 3", '2: experts.lead: 3; expected a table such as [experts."my-expert"]'),
        (
            '[experts."pro-trainer"]\ndescription = "x"',
            "1: experts.pro-trainer.instruction: missing; expected text (at most 20 KB)",
        ),
        (
            '[experts."@a/b@1.0.0"]',
            '1: experts."@a/b@1.0.0".instruction: missing; expected text (at most 20 KB)',
        ),
        (
            '[experts."Lead"]\ninstruction = "x"',
            (
                "1: experts.Lead: an Expert key is `name` or `@scope/name` in lower case, optionally with "
                "`@1.0.0` or `@tag`"
            ),
        ),
        (EXPERT + 'key = "lead"', "3: experts.lead.key: unknown key; an Expert's key is its table's name"),
        (EXPERT + "tags = 1", "3: experts.lead.tags: 1; expected a list of texts"),
        (
            EXPERT + f'description = "{"x" * 2049}"',
            "3: experts.lead.description: text of 2049 characters is there; expected text of at most 2048 characters",
        ),
        (
            f'[experts.lead]\ninstruction = """\n{"é" * 10241}"""',
            "2: experts.lead.instruction: an instruction has at most 20480 bytes; this one has 20482",
        ),
        (EXPERT + "skillz = {}", "3: experts.lead.skillz: unknown key; did you mean skills?"),
        (
            EXPERT + "sandbx = 1",
            (
                "3: experts.lead.sandbx: unknown key; known: delegates, description, instruction, "
                "minRuntimeVersion, skills, "
                "tags, version"
            ),
        ),
        (
            EXPERT + 'skills.s = { command = "x" }',
            "3: experts.lead.skills.s.type: missing; expected mcpStdioSkill, mcpSseSkill or interactiveSkill",
        ),
        (
            EXPERT + '[experts.lead.skills.s]\ntype = "mcp"',
            '4: experts.lead.skills.s.type: "mcp"; expected mcpStdioSkill, mcpSseSkill or interactiveSkill',
        ),
        (
            EXPERT + '[experts.lead.skills.s]\ntype = "mcpStdioSkill"',
            "3: experts.lead.skills.s.command: missing; expected the command that starts the MCP server",
        ),
        (
            EXPERT + '[experts.lead.skills.s]\ntype = "mcpStdioSkill"\ncommand = "x"\nrequireEnv = []',
            "6: experts.lead.skills.s.requireEnv: unknown key; did you mean requiredEnv?",
        ),
        (
            EXPERT + '[experts.lead.skills.s]\ntype = "mcpSseSkill"',
            "3: experts.lead.skills.s.endpoint: missing; expected the https address of the MCP server",
        ),
        (
            EXPERT + '[experts.lead.skills.s]\ntype = "mcpSseSkill"\nendpoint = "http://x"',
            "5: experts.lead.skills.s.endpoint: an endpoint is a public https address",
        ),
        (
            EXPERT
            + '[experts.lead.skills.s]\ntype = "mcpStdioSkill"\ncommand = "x"\nallowedDomains = ["a.com", "10.0.0.1"]',
            (
                "6: experts.lead.skills.s.allowedDomains[1]: '10.0.0.1' is not a domain: use `example.com` or "
                "`*.example.com`, "
                "no address and no port"
            ),
        ),
        (
            EXPERT + '[experts.lead.skills.s]\ntype = "interactiveSkill"\ntools.ask = { inputJsonSchema = "no" }',
            (
                '5: experts.lead.skills.s.tools.ask.inputJsonSchema: "no"; expected a JSON Schema object, '
                "written as JSON text"
            ),
        ),
        (
            EXPERT + '[experts.lead.skills.s]\ntype = "interactiveSkill"\ntools.ask = {}',
            (
                "5: experts.lead.skills.s.tools.ask.inputJsonSchema: missing; expected a JSON Schema object, "
                "written as JSON text"
            ),
        ),
        (
            EXPERT + '[experts.lead.skills."@perstack/base"]\ntype = "interactiveSkill"\ntools = {}',
            (
                '4: experts.lead.skills."@perstack/base".type: interactiveSkill; expected mcpStdioSkill, which '
                "@perstack/base "
                "always is"
            ),
        ),
        (
            EXPERT + '[experts.lead.skills."@perstack/base"]\ntype = "mcpStdioSkill"\nomit = [\n"exce"]',
            '5: experts.lead.skills."@perstack/base".omit[0]: @perstack/base has no tool exce; did you mean exec?',
        ),
        (
            EXPERT + 'delegates = ["leed"]',
            "3: experts.lead.delegates[0]: there is no Expert leed; did you mean lead?",
        ),
        (
            EXPERT + 'delegates = ["@other/one@2.0.0"]',
            "3: experts.lead.delegates[0]: there is no Expert @other/one@2.0.0; known: lead",
        ),
        (
            EXPERT + 'delegates = ["lead", "lead"]',
            "3: experts.lead.delegates[1]: the delegate lead is named twice; once is enough",
        ),
        (
            EXPERT + 'delegates = ["a", "@a/b", "a-b"]\n[experts]\na.instruction = "x"\na-b.instruction = "x"\n'
            '"@a/b".instruction = "x"',
            (
                "3: experts.lead.delegates[2]: the delegate a-b is offered as the tool a-b, and so is the "
                "delegate @a/b; give one "
                "of the Experts another name, or omit the tool of @perstack/base"
            ),
        ),
        (
            EXPERT + 'delegates = ["todo"]\n[experts.todo]\ninstruction = "x"',
            (
                "3: experts.lead.delegates[0]: the delegate todo is offered as the tool todo, and so is a tool "
                "of @perstack/base; "
                "give one of the Experts another name, or omit the tool of @perstack/base"
            ),
        ),
        (
            EXPERT + '[experts.lead.skills.s]\ntype = "interactiveSkill"\ntools.exec = { inputJsonSchema = "{}" }',
            (
                "5: experts.lead.skills.s.tools.exec: skills.s.tools.exec is offered as the tool exec, and so "
                "is a tool of "
                "@perstack/base; give it another name"
            ),
        ),
        (
            EXPERT + 'minRuntimeVersion = "9.1"',
            (
                "3: experts.lead.minRuntimeVersion: needs version 9.1, and this is perstack 0.1.0; install a "
                "newer perstack"
            ),
        ),
        (
            EXPERT + 'minRuntimeVersion = "new"',
            '3: experts.lead.minRuntimeVersion: "new"; expected a version such as 0.1.0',
        ),
    ],
)
def test_a_problem_is_told_with_its_line_its_key_and_what_was_expected(
    problems: Problems, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    monkeypatch.setattr("orchestrator.config.consistency.RUNTIME_VERSION", "0.1.0")
    assert problems(text) == [f"perstack.toml:{problem}"]


@pytest.mark.parametrize("version", ["0.1", "v0.1.0", "0.0.99", "0"])
def test_an_expert_that_needs_this_version_or_an_older_one_can_run(
    load: Callable[[str], PerstackConfig], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("orchestrator.config.consistency.RUNTIME_VERSION", "0.1.0")
    assert load(f'{EXPERT}minRuntimeVersion = "{version}"').experts


@pytest.mark.parametrize("choice", ['omit = ["todo"]', 'pick = ["exec"]', 'pick = ["todo"]\nomit = ["todo"]'])
def test_a_base_tool_that_is_not_offered_leaves_its_name_to_a_delegate(
    load: Callable[[str], PerstackConfig], choice: str
) -> None:
    base = f'[experts.lead.skills."@perstack/base"]\ntype = "mcpStdioSkill"\n{choice}\n'
    assert load(f'{EXPERT}delegates = ["todo"]\n{base}[experts.todo]\ninstruction = "x"').experts


def test_all_problems_are_told_at_once_and_in_the_order_of_the_file(problems: Problems) -> None:
    """Those of one Expert beside those between Experts, and also where one part of an Expert is broken."""
    lines = problems("""
[experts.late]
delegates = ["nobody"]
skills.s.type = "mcp"
skills.t.type = "mcpStdioSkill"

[experts.early]
instruction = "x"
delegates = ["late", "nobody"]
""")
    assert [line.split("; ")[0] for line in lines] == [
        "perstack.toml:2: experts.late.instruction: missing",
        "perstack.toml:3: experts.late.delegates[0]: there is no Expert nobody",
        'perstack.toml:4: experts.late.skills.s.type: "mcp"',
        "perstack.toml:5: experts.late.skills.t.command: missing",
        "perstack.toml:9: experts.early.delegates[1]: there is no Expert nobody",
    ]


def test_no_more_problems_are_told_than_one_can_read(problems: Problems) -> None:
    lines = problems("\n".join(f"unknown{n} = 1" for n in range(MAX_PROBLEMS + 3)))
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == "perstack.toml: and 3 more problems"


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ('baseUrl = "https://me:s3cr3t@example.com"', "baseUrl: an address holds no user and password"),
        ("baseUrl = ['s3cr3t']", "baseUrl: a list is there; expected text"),
        ("headers = { Authorization = ['s3cr3t'] }", "headers.Authorization: a list is there; expected text"),
        ("headers = 's3cr3t'", "headers: text is there; expected a table"),
    ],
)
def test_a_secret_is_not_repeated(problems: Problems, setting: str, place: str) -> None:
    (line,) = problems(f"[provider.setting]\n{setting}")
    assert line.startswith(f"perstack.toml:2: provider.setting.{place}")
    assert "s3cr3t" not in line


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a = 1\nb = \n", "perstack.toml:2:5: not TOML: Invalid value"),
        (b'a = """\n\n', "perstack.toml:3: not TOML: "),
        (b"[a]\nx = 1\n[a]\n", "perstack.toml:3:3: not TOML: Cannot declare ('a',) twice"),
        (b"# \xff\n", "perstack.toml:1: not UTF-8 text"),
        (b"a = " + b"[" * 100_000, "perstack.toml: nested too deeply"),
        (b"#" * (4 * 1024 * 1024 + 1), "perstack.toml: larger than 4 MB"),
    ],
    ids=["value", "end", "twice", "not UTF-8", "nested", "large"],
)
def test_a_file_that_is_not_toml_is_an_error_with_its_place(folder: Path, raw: bytes, message: str) -> None:
    path = folder / "perstack.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert str(raised.value).startswith(message)


def test_a_file_that_does_not_exist_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^other\.toml: there is no such file$"):
        load_config(Path("other.toml"))


def test_a_file_outside_of_the_current_folder_is_named_in_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "perstack.toml").write_text("x = 1")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    with pytest.raises(ConfigError) as raised:
        load_config(folder / "perstack.toml")
    assert str(raised.value).startswith(f"{folder}/perstack.toml:1: x: unknown key")


def test_the_nearest_file_upwards_is_found(folder: Path) -> None:
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    (folder / "perstack.toml").touch()
    assert find_config(deep) == folder / "perstack.toml"
    (folder / "a" / "perstack.toml").touch()
    assert find_config(deep) == folder / "a" / "perstack.toml"
    (deep / "perstack.toml").mkdir()
    assert find_config(deep) == folder / "a" / "perstack.toml"


def test_where_there_is_none_the_error_says_where_it_was_looked_for(folder: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        find_config(folder)
    assert str(raised.value) == (
        f"there is no perstack.toml in {folder} or any folder above it: write one, or name it with --config"
    )


toml_values = st.sampled_from(
    [
        "1",
        "true",
        '""',
        '"x"',
        "[]",
        "[1]",
        '["x"]',
        "{}",
        "1979-05-27",
        "0.5",
        "nan",
        "{ x = 1 }",
        '[{ type = "mcpSseSkill" }]',
    ]
)
places = st.sampled_from(
    [
        "model",
        "provider",
        "provider.setting",
        "provider.setting.headers",
        "provider.setting.headers.x",
        "reasoningBudget",
        "experts",
        "experts.a",
        'experts."A b"',
        "experts.a.instruction",
        "experts.a.key",
        "experts.a.delegates",
        "experts.a.skills",
        "experts.a.skills.s",
        "experts.a.skills.s.type",
        "experts.a.skills.mcpStdioSkill.type",
        'experts.a.skills."@perstack/base"',
        "experts.a.skills.s.tools",
        "experts.a.skills.s.tools.t",
        "experts.a.skills.s.pick",
        "unknown",
    ]
)
kinds = st.sampled_from(["mcpStdioSkill", "mcpSseSkill", "interactiveSkill"])


@given(st.lists(st.tuples(places, toml_values), max_size=4), kinds)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_stands_there_the_file_is_read_or_refused_line_by_line(
    folder: Path, entries: list[tuple[str, str]], kind: str
) -> None:
    path = folder / "perstack.toml"
    path.write_text(
        "".join(f"{place} = {value}\n" for place, value in entries) + f'experts.a.skills.s.type = "{kind}"\n'
    )
    try:
        load_config(path)
    except ConfigError as error:
        for line in str(error).splitlines():
            file, number, rest = line.split(":", 2)
            assert file == "perstack.toml"
            assert 1 <= int(number) <= len(entries) + 1
            assert rest
