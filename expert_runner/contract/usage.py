"""Token counts, as the gateway counted them."""

from typing import Self

from pydantic import Field

from expert_runner.contract.model import Model


class Usage(Model):
    """Tokens of one generation, of a step, of a Run or of a Job. `total_tokens` is what the provider bills as the
    total.
    """

    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    reasoning_tokens: int = Field(default=0, ge=0)
    total_tokens: int = Field(default=0, ge=0)
    cached_input_tokens: int = Field(default=0, ge=0)

    def __add__(self, other: Self) -> Self:
        return self.model_copy(
            update={name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields}
        )

    def __sub__(self, other: Self) -> Self:
        """What was used since `other`, an earlier count of the same."""
        return self.model_copy(
            update={name: getattr(self, name) - getattr(other, name) for name in type(self).model_fields}
        )


NO_USAGE = Usage()
