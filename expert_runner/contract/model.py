"""The base of every contract type: immutable, closed, camelCase in JSON and snake_case in Python."""

from pydantic import BaseModel, ConfigDict
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
