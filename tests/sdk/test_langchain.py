"""LangChain's ChatOpenAI against running gateways: invoke, stream, tools."""

from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.conftest import MakeGateway
from tests.gateway import Gateway
from tests.processes import ROOT
from tests.tiny_model import SENTENCE, TOKENS_OUT
from tests.upstreams import Upstream, tool_call


def chat_model(gateway: Gateway, key: str, name: str = "tiny") -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=gateway.base_url, api_key=SecretStr(key), max_retries=0, timeout=20)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_it_works(gateway: Gateway, api_key: str) -> None:
    answer = chat_model(gateway, api_key).invoke("Hello")
    assert isinstance(answer, AIMessage)
    assert answer.text.strip() == SENTENCE
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] == TOKENS_OUT
    assert answer.response_metadata["model_name"] == "tiny"


def test_stream(gateway: Gateway, api_key: str) -> None:
    chunks = list(chat_model(gateway, api_key).stream("Hello", stream_usage=True))
    assert "".join(chunk.text for chunk in chunks).strip() == SENTENCE
    assert len(chunks) > TOKENS_OUT / 2, "not streamed"
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) == TOKENS_OUT


def test_tools(gateway: Gateway, api_key: str, recorder: Upstream) -> None:
    recorder.answers(tool_call("add", a=1, b=2))
    answer = chat_model(gateway, api_key, "vendor/recorded").bind_tools([add]).invoke("1 + 2?")
    assert isinstance(answer, AIMessage)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("add", {"a": 1, "b": 2})]
    assert recorder.last.json["tools"][0]["function"]["name"] == "add"


def test_the_demonstration_calls_a_tool(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(env={"KODNA_DEMO": "on"})
    gateway.manage("catalog", "load", ROOT / "models_catalog" / "demo.yaml")
    key = gateway.key()
    with gateway:
        answer = chat_model(gateway, key, "kodna-demo-tools").bind_tools([add]).invoke("Add 1 and 2")
    assert isinstance(answer, AIMessage)
    [call] = answer.tool_calls
    assert call["name"] == "add"
    assert set(call["args"]) == {"a", "b"}
