"""Messages of a Run's conversation and the parts they are made of.

An event names messages *by reference* (:class:`MessageRef`: type and id) wherever their contents are recorded
elsewhere, so that no text reaches the bus or the disk twice. The whole messages are subclasses of the reference: a
field declared by reference holds the whole message in memory and writes only the reference as JSON.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from expert_runner.contract.model import Model


class TextPart(Model):
    type: Literal["textPart"] = "textPart"
    text: str


class ThinkingPart(Model):
    """Reasoning the provider disclosed. `signature` is the provider's proof of it, sent back unchanged."""

    type: Literal["thinkingPart"] = "thinkingPart"
    thinking: str
    signature: str | None = None


class ImageUrlPart(Model):
    type: Literal["imageUrlPart"] = "imageUrlPart"
    url: str
    mime_type: str


class ImageInlinePart(Model):
    """An image as base64 text."""

    type: Literal["imageInlinePart"] = "imageInlinePart"
    encoded_data: str
    mime_type: str


class ImageBinaryPart(Model):
    """An image whose bytes are given as base64 text by an embedding program."""

    type: Literal["imageBinaryPart"] = "imageBinaryPart"
    data: str
    mime_type: str


class FileUrlPart(Model):
    type: Literal["fileUrlPart"] = "fileUrlPart"
    url: str
    mime_type: str


class FileInlinePart(Model):
    """A file as base64 text."""

    type: Literal["fileInlinePart"] = "fileInlinePart"
    encoded_data: str
    mime_type: str


class FileBinaryPart(Model):
    """A file whose bytes are given as base64 text by an embedding program."""

    type: Literal["fileBinaryPart"] = "fileBinaryPart"
    data: str
    mime_type: str


MediaPart = ImageUrlPart | ImageInlinePart | ImageBinaryPart | FileUrlPart | FileInlinePart | FileBinaryPart
ResultPart = Annotated[
    TextPart | ImageInlinePart | FileInlinePart,
    Field(discriminator="type"),
]
"""What a tool may answer with."""


class ToolCallPart(Model):
    """A call the model made. `args` is None when they were not a JSON object; `invalid_args` is then what it wrote."""

    type: Literal["toolCallPart"] = "toolCallPart"
    tool_call_id: str
    tool_name: str
    args: dict[str, Any] | None = None
    invalid_args: str | None = None


class ToolResultPart(Model):
    type: Literal["toolResultPart"] = "toolResultPart"
    tool_call_id: str
    tool_name: str
    contents: tuple[ResultPart, ...]
    is_error: bool = False


class MessageRef(Model):
    """A message by reference; its contents are in the event that brought them."""

    type: Literal["instructionMessage", "userMessage", "expertMessage", "toolMessage"]
    id: str


class InstructionMessage(MessageRef):
    """What the Expert is: its instruction and what it may do. Sent to the model as the system message."""

    type: Literal["instructionMessage"] = "instructionMessage"
    contents: tuple[TextPart, ...]


class UserMessage(MessageRef):
    type: Literal["userMessage"] = "userMessage"
    contents: tuple[Annotated[TextPart | MediaPart, Field(discriminator="type")], ...]


class ExpertMessage(MessageRef):
    """The model's answer."""

    type: Literal["expertMessage"] = "expertMessage"
    contents: tuple[Annotated[TextPart | ThinkingPart | ToolCallPart, Field(discriminator="type")], ...]

    @property
    def text(self) -> str:
        """The text of all text parts, one after the other."""
        return "".join(part.text for part in self.contents if isinstance(part, TextPart))


class ToolMessage(MessageRef):
    """The results of all calls of one answer, in call order."""

    type: Literal["toolMessage"] = "toolMessage"
    contents: tuple[ToolResultPart, ...]


Message = Annotated[InstructionMessage | UserMessage | ExpertMessage | ToolMessage, Field(discriminator="type")]
