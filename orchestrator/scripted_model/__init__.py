"""A model that says what a script tells it to, over HTTP as OpenAI's chat completions.

It lets tests, benchmarks, demos and users exercise the whole way to a provider and back, without a provider or a key.
"""

from orchestrator.scripted_model.loading import ScriptError, load_script
from orchestrator.scripted_model.records import RequestRecord
from orchestrator.scripted_model.script import (
    Conversation,
    CutOffFault,
    DisconnectFault,
    EmptyFault,
    HangFault,
    Script,
    ScriptedCall,
    StatusFault,
    TokenCounts,
    Turn,
)
from orchestrator.scripted_model.server import ScriptedModel

__all__ = [
    "Conversation",
    "CutOffFault",
    "DisconnectFault",
    "EmptyFault",
    "HangFault",
    "RequestRecord",
    "Script",
    "ScriptError",
    "ScriptedCall",
    "ScriptedModel",
    "StatusFault",
    "TokenCounts",
    "Turn",
    "load_script",
]
