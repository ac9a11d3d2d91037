"""The base of every contract type: immutable, closed, camelCase in JSON and snake_case in Python."""

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """An immutable record whose JSON names are the camelCase form of its attribute names.

    Unknown fields are refused, because what arrives over the bus comes from a sandbox. Schemas are built at first use:
    a runner pays only for the types it touches.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        defer_build=True,
    )

    def encode(self) -> bytes:
        """This record as one line of JSON (UTF-8, no line break); absent fields are left out."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_none=True)


MAX_PROBLEMS = 100
"""Problems of one message that are looked at one by one."""


def first_problem(error: ValueError) -> str:
    """The first thing that is wrong with what could not be validated, as one line that repeats nothing of it."""
    if not isinstance(error, ValidationError):
        return str(error)
    if error.error_count() > MAX_PROBLEMS:
        # Putting each of them into words to get the first would take seconds.
        return f"{error.error_count()} problems"
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
