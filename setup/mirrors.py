"""Where this machine gets its Debian packages from, as its apt sources say."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APT_FOLDER = Path("/etc/apt")


@dataclass(frozen=True)
class Source:
    """One place of one suite: `deb URI SUITE COMPONENTS...`."""

    uri: str
    suite: str
    components: tuple[str, ...]


def find_mirror(suite: str, folder: Path = APT_FOLDER) -> Source | None:
    """The first source of the suite's main component that debootstrap can use; None when there is none."""
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        parse = parse_deb822 if path.suffix == ".sources" else parse_one_line
        for source in parse(path.read_text(errors="replace")):
            usable = _resolve(source)
            if usable and source.suite == suite and "main" in source.components:
                return usable
    return None


def parse_one_line(text: str) -> Iterator[Source]:
    """Sources of the form `deb [option=value ...] uri suite component...`."""
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words or words[0] != "deb":
            continue
        rest = words[1:]
        if rest and rest[0].startswith("["):
            end = next((place for place, word in enumerate(rest) if word.endswith("]")), len(rest))
            rest = rest[end + 1 :]
        if len(rest) >= 3:
            yield Source(rest[0], rest[1], tuple(rest[2:]))


def parse_deb822(text: str) -> Iterator[Source]:
    """Sources in paragraphs of `Key: values`, where every URI goes with every suite."""
    for fields in _paragraphs(text):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").strip().lower() == "no":
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, tuple(fields.get("components", "").split()))


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    key = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, key = {}, ""
        elif line[0] in " \t":
            fields[key] = f"{fields.get(key, '')}\n{line.strip()}"
        else:
            key, _, value = line.partition(":")
            key = key.strip().lower()
            fields[key] = value.strip()


def _resolve(source: Source) -> Source | None:
    """The source with a URI that debootstrap understands; None for CD-ROMs and the like."""
    scheme, _, rest = source.uri.partition(":")
    if scheme in ("http", "https", "file"):
        return source
    if scheme == "mirror+file":
        # Debian's cloud images: the URI names a file with one mirror a line.
        try:
            lines = Path("/" + rest.lstrip("/")).read_text().split()
        except OSError:
            return None
        if lines and lines[0].partition(":")[0] in ("http", "https"):
            return Source(lines[0], source.suite, source.components)
    return None
