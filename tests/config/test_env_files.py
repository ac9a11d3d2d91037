"""Env files, and what may be passed into sandboxes."""

import os
from pathlib import Path

import pytest

from orchestrator.config.env_files import check_passed_env, read_env
from orchestrator.errors import ConfigError, MissingKeyError

SECRET = "s3cr3t-value"
KEYS = frozenset({"OPENAI_API_KEY", "ANTHROPIC_API_KEY"})


def test_later_files_win_over_earlier_ones_and_the_process_over_all(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=1\nC=1\n")
    (tmp_path / ".env.local").write_text("B=2\nC=2\n")
    environment = read_env((), {"C": "3", "D": "4"}, tmp_path)
    assert environment.variables == {"A": "1", "B": "2", "C": "3", "D": "4"}
    assert environment.files == (tmp_path / ".env", tmp_path / ".env.local")


def test_the_default_files_need_not_exist(tmp_path: Path) -> None:
    assert read_env((), {"A": "1"}, tmp_path) == ({"A": "1"}, ())


def test_the_default_files_are_those_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("A=1")
    monkeypatch.chdir(tmp_path)
    assert read_env((), {}).files == (tmp_path / ".env",)


def test_named_files_replace_the_default_ones(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1")
    (tmp_path / "mine").write_text("B=1")
    assert read_env([Path("mine")], {}, tmp_path) == ({"B": "1"}, (tmp_path / "mine",))


def test_a_file_that_is_named_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read_env([Path("missing.env")], {}, tmp_path)
    assert str(raised.value) == "missing.env: there is no such env file"


def test_a_link_and_what_it_leads_to_are_both_known_as_secret_files(tmp_path: Path) -> None:
    target = tmp_path / "workspace" / "secrets"
    target.parent.mkdir()
    target.write_text("A=1")
    (tmp_path / ".env").symlink_to(target)
    assert read_env((), {}, tmp_path).files == (tmp_path / ".env", target)


def test_the_usual_ways_to_write_a_line_are_read(tmp_path: Path) -> None:
    text = "\ufeff# comment\n\nexport A=1\nB = 'x # y'\nC=\"two\nlines\" # comment\n"
    text += "D=plain # comment\nE=\nF=${A}$B\r\nG=x=y"
    (tmp_path / ".env").write_text(text, newline="")
    assert read_env((), {}, tmp_path).variables == {
        "A": "1",
        "B": "x # y",
        "C": "two\nlines",
        "D": "plain",
        "E": "",
        "F": "${A}$B",
        "G": "x=y",
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"A=1\n\n# c\n{SECRET}\n", 4),
        (f'A=1\n\n\nB="{SECRET}\n', 4),
        (f"={SECRET}", 1),
        (f"A=1\nB='{SECRET}' {SECRET}\n", 2),
    ],
)
def test_a_line_that_is_no_assignment_is_named_without_what_it_says(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / ".env").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_env((), {}, tmp_path)
    assert str(raised.value) == (
        f".env:{line}: not an assignment; expected NAME=value, or a comment that begins with #"
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"A=1\nB=\xff\n", ".env:2: not UTF-8 text"),
        (b"A=1\nB=a\0b\n", ".env:2: has a NUL character, which no environment can hold"),
        (b"#" * (4 * 1024 * 1024 + 1), ".env: larger than 4 MB; is this the right file?"),
    ],
    ids=["not UTF-8", "NUL", "large"],
)
def test_a_file_that_is_no_env_file_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / ".env").write_bytes(raw)
    with pytest.raises(ConfigError) as raised:
        read_env((), {}, tmp_path)
    assert str(raised.value) == message


def test_a_folder_is_no_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigError) as raised:
        read_env((), {}, tmp_path)
    assert str(raised.value) == ".env: cannot be read: Is a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1")
    (tmp_path / ".env").chmod(0)
    with pytest.raises(ConfigError) as raised:
        read_env((), {}, tmp_path)
    assert str(raised.value) == ".env: cannot be read: Permission denied"


def test_a_variable_that_is_set_may_be_passed() -> None:
    check_passed_env(["GITHUB_TOKEN", "EMPTY"], KEYS, {"GITHUB_TOKEN": "x", "EMPTY": "", "OPENAI_API_KEY": ""})


def test_a_providers_key_cannot_be_passed_into_a_sandbox() -> None:
    with pytest.raises(ConfigError) as raised:
        check_passed_env(["OPENAI_API_KEY"], KEYS, {"OPENAI_API_KEY": SECRET})
    assert str(raised.value) == (
        "--env OPENAI_API_KEY: a provider's key never enters a sandbox; model calls are made outside of it"
    )


def test_a_providers_key_cannot_be_passed_under_another_name() -> None:
    with pytest.raises(ConfigError) as raised:
        check_passed_env(["MINE"], KEYS, {"MINE": SECRET, "ANTHROPIC_API_KEY": SECRET})
    assert (
        str(raised.value) == "--env MINE: it holds the key ANTHROPIC_API_KEY; a provider's key never enters a sandbox"
    )


def test_a_variable_that_is_not_set_cannot_be_passed() -> None:
    with pytest.raises(MissingKeyError) as raised:
        check_passed_env(["MISSING"], KEYS, {})
    assert str(raised.value) == "--env MISSING: not set; set it in the environment or in an env file (--env-path)"
