from pathlib import Path

import pytest

from setup.mirrors import Source, find_mirror, parse_deb822, parse_one_line

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 URIs: not a field
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://mirror.example/off
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://mirror.example/source
Suites: bookworm
Components: main
"""


def test_deb822_gives_every_suite_of_the_enabled_binary_paragraphs() -> None:
    assert list(parse_deb822(DEB822)) == [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        Source("http://mirror.example/debian", "bookworm-updates", ("main", "contrib")),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deb http://m.example/debian bookworm main", [Source("http://m.example/debian", "bookworm", ("main",))]),
        (
            "deb [arch=amd64 signed-by=/k.gpg] https://m.example/d trixie main contrib # why",
            [Source("https://m.example/d", "trixie", ("main", "contrib"))],
        ),
        ("deb [ arch=amd64 ] https://m.example/d trixie main", [Source("https://m.example/d", "trixie", ("main",))]),
        ("deb-src http://m.example/debian bookworm main", []),
        ("# deb http://m.example/debian bookworm main", []),
        ("deb http://m.example/flat ./", []),
        ("", []),
    ],
)
def test_one_line_sources(line: str, expected: list[Source]) -> None:
    assert list(parse_one_line(line)) == expected


def apt_folder(root: Path, **files: str) -> Path:
    (root / "sources.list.d").mkdir()
    for name, text in files.items():
        place = root if name == "sources_list" else root / "sources.list.d"
        (place / name.replace("_", ".")).write_text(text)
    return root


def test_the_mirror_is_the_first_source_of_the_suite_with_main(tmp_path: Path) -> None:
    folder = apt_folder(
        tmp_path,
        sources_list="deb cdrom:[Debian 12]/ bookworm main\ndeb http://m.example/security bookworm-security main\n",
        a_list="deb http://third.example/tools bookworm stable\n",
        debian_sources=DEB822,
    )
    assert find_mirror("bookworm", folder) == Source("http://mirror.example/debian", "bookworm", ("main", "contrib"))
    assert find_mirror("trixie", folder) is None


def test_a_list_of_mirrors_in_a_file_gives_its_first(tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors"
    mirrors.write_text("https://one.example/debian\nhttps://two.example/debian\n")
    folder = apt_folder(tmp_path, debian_list=f"deb mirror+file:{mirrors} bookworm main\n")
    found = find_mirror("bookworm", folder)
    assert found is not None
    assert found.uri == "https://one.example/debian"


def test_switched_off_files_are_not_read(tmp_path: Path) -> None:
    folder = apt_folder(tmp_path, debian_list_off="deb http://m.example/debian bookworm main\n")
    assert find_mirror("bookworm", folder) is None
