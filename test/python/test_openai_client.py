"""The official OpenAI client for Python against the server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2
import openai
import pytest
from serving import Server, serve

from make_test_bundles import config, mamba2, random_model, transformer
from multiscale.export.bundle_writer import write_bundle


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bundle = tmp_path_factory.mktemp("openai") / "tiny"
    write_bundle(random_model(config([48, 32], [512, 4], [mamba2(), transformer()]), seed=3), bundle, "tiny", "fp32")
    with serve(bundle, "--slots", "2", "--max-waiting", "0") as server:
        yield server


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def until_idle(server: Server) -> None:
    for _ in range(500):
        if server.metric("mblm_requests_running") == 0 and server.metric("mblm_requests_waiting") == 0:
            return
        time.sleep(0.01)
    raise AssertionError("the server did not become idle")


def test_create_and_stream(client: openai.OpenAI) -> None:
    request = {"model": "tiny", "prompt": "hello", "max_tokens": 40, "seed": 5, "logprobs": 2}
    whole = client.completions.create(**request)
    chunks = list(client.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 40
    assert whole.choices[0].finish_reason == "length"
    assert len(whole.choices[0].logprobs.token_logprobs) == 40


def test_several_prompts_of_bytes(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=[[72, 105], [0, 255]], max_tokens=3, echo=True)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text.startswith("Hi")


def test_chat(client: openai.OpenAI) -> None:
    request = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20, "seed": 1}
    whole = client.chat.completions.create(**request, logprobs=True, top_logprobs=1)
    chunks = list(client.chat.completions.create(**request, stream=True))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert whole.choices[0].message.role == "assistant"
    assert [b for token in whole.choices[0].logprobs.content for b in token.bytes]


def test_two_turns(client: openai.OpenAI) -> None:
    """An answer goes back as it is, and as the dictionary that the client makes of it, with a None for all that it lacks."""
    request = {"model": "tiny", "max_tokens": 20, "seed": 1}
    messages: list = [{"role": "user", "content": "Hi"}]
    message = client.chat.completions.create(**request, messages=messages).choices[0].message
    more = {"role": "user", "content": "And?"}
    plain = {"role": "assistant", "content": message.content}
    assert message.model_dump()["tool_calls"] is None
    answers = [
        client.chat.completions.create(**request, messages=[*messages, sent, more])
        for sent in (plain, message, message.model_dump())
    ]
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    assert len({answer.usage.prompt_tokens for answer in answers}) == 1


def test_structured_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=20,
        extra_body={"structured_outputs": {"choice": ["yes", "no"]}},
    )
    assert answer.choices[0].message.content in ("yes", "no")


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="other is not served"):
        client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.BadRequestError, match="temperature") as caught:
        client.completions.create(model="tiny", prompt="a", temperature=3)
    assert caught.value.param == "temperature"
    assert caught.value.code == "invalid_request"


def test_leaving_a_stream_frees_the_slot(client: openai.OpenAI, server: Server) -> None:
    with client.completions.create(model="tiny", prompt="a", max_tokens=1_000_000, stream=True) as stream:
        next(iter(stream))
    until_idle(server)


def test_a_timeout_frees_the_slot(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(model="tiny", prompt="a", max_tokens=1_000_000, timeout=0.5)
    until_idle(server)


def test_overload_is_retried(server: Server) -> None:
    """Two endless streams fill the server; the client tries again until one of them ends."""
    statuses: list[int] = []
    transport = httpx2.Client(event_hooks={"response": [lambda response: statuses.append(response.status_code)]})
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=3, http_client=transport)
    streams = [client.completions.create(model="tiny", prompt="a", max_tokens=10**6, stream=True) for _ in range(2)]
    for stream in streams:
        next(iter(stream))
    with pytest.raises(openai.RateLimitError):
        client.with_options(max_retries=0).completions.create(model="tiny", prompt="b")
    transport.event_hooks["response"].append(lambda response: response.status_code == 429 and streams[0].close())
    assert client.completions.create(model="tiny", prompt="b", max_tokens=2).usage.completion_tokens == 2
    assert statuses == [200, 200, 429, 429, 200]
    streams[1].close()
    until_idle(server)
