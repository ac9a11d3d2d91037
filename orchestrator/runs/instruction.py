"""The first message of every conversation: who the Expert is and how it works here."""

from expert_runner.contract.experts import Expert
from expert_runner.contract.messages import InstructionMessage, TextPart
from expert_runner.contract.tools import ToolDefinition

_FRAME = """\
You are an Expert: an agent that works on its own until its task is done.
Your Expert key is "{key}".

- Work towards the user's request with the tools you have; call several at once where none needs another's result.
- You and other Experts share one workspace, the folder {workspace}.
  They see its files and nothing of your conversation.
- You have no network. Commands run in a sandbox that is thrown away at the end; only the workspace stays.
- When the request is fulfilled call attemptCompletion; when you are then asked, write the result for whoever asked.

Your instruction:

{instruction}"""


def instruction_message(
    expert: Expert, message_id: str, workspace: str, tools: tuple[ToolDefinition, ...]
) -> InstructionMessage:
    """The instruction message of `expert`. Rules of skills whose tools it has come after its own instruction."""
    text = _FRAME.format(key=expert.key, workspace=workspace, instruction=expert.instruction.strip())
    offered = {tool.skill_name for tool in tools}
    rules = [f"{name}: {skill.rule.strip()}" for name, skill in expert.skills.items() if skill.rule and name in offered]
    if rules:
        text += "\n\nRules of your skills:\n\n" + "\n".join(f"- {rule}" for rule in rules)
    return InstructionMessage(id=message_id, contents=(TextPart(text=text),))
