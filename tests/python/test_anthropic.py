"""The Anthropic SDK, as its users use it, through the gateway to a backend of Anthropic's own dialect."""

import asyncio
import json
import os

import anthropic
import httpx2
import pytest

MODEL = "claude-test"
# The gateway asks the provider for `provider-claude` instead.
RENAMED = "claude-renamed"
ASK = {"max_tokens": 100, "messages": [{"role": "user", "content": "Hi."}]}
SAID = "I am inevitable."


def test_messages(claude, backend):
    message = claude.messages.create(model=MODEL, **ASK)
    assert message.content[0].text == SAID
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (9, 11)
    seen = backend.last()
    assert seen["path"] == "/v1/messages"
    assert json.loads(seen["body"]) == {"model": MODEL, **ASK}


def test_the_provider_gets_the_configured_key_and_only_that(claude, backend):
    claude.messages.create(model=MODEL, **ASK)
    seen = backend.last()
    assert seen["headers"]["x-api-key"] == ["sk-ant-configured"]
    assert "authorization" not in seen["headers"]
    assert "sk-ant-client" not in json.dumps(seen)
    assert seen["headers"]["anthropic-version"] == [claude.default_headers["anthropic-version"]]


def test_a_clients_token_is_not_passed_on_either(backend):
    url = os.environ["AIGW_URL"] + "/anthropic"
    with anthropic.Anthropic(base_url=url, auth_token="client-token", max_retries=0) as client:
        assert client.messages.create(model=MODEL, **ASK).content
    seen = backend.last()
    assert seen["headers"]["x-api-key"] == ["sk-ant-configured"]
    assert "client-token" not in json.dumps(seen)


def test_renamed_model(claude, backend):
    assert claude.messages.create(model=RENAMED, **ASK).model == "provider-claude"
    assert json.loads(backend.last()["body"]) == {"model": "provider-claude", **ASK}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_streaming(claude, backend, encoding):
    headers = {"x-testbackend-encoding": encoding}
    with claude.messages.stream(model=MODEL, extra_headers=headers, **ASK) as stream:
        assert "".join(stream.text_stream) == SAID
        message = stream.get_final_message()
    assert message.content[0].text == SAID
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (9, 11)
    assert json.loads(backend.last()["body"]) == {"model": MODEL, "stream": True, **ASK}


def test_streaming_events_come_as_they_were_sent(claude):
    events = list(claude.messages.create(model=MODEL, stream=True, **ASK))
    kinds = [event.type for event in events]
    deltas = ["content_block_delta"] * 3
    assert [kind for kind in kinds if kind != "ping"] == [
        "message_start", "content_block_start", *deltas, "content_block_stop", "message_delta", "message_stop",
    ]


def test_streaming_left_early(claude):
    headers = {"x-testbackend-fault": "endless"}
    with claude.messages.stream(model=MODEL, extra_headers=headers, **ASK) as stream:
        for _, text in zip(range(20), stream.text_stream):
            assert text
    assert claude.messages.create(model=MODEL, **ASK).content


def test_async():
    async def listen(client):
        async with client.messages.stream(model=MODEL, **ASK) as stream:
            return "".join([text async for text in stream.text_stream])

    async def main():
        url = os.environ["AIGW_URL"] + "/anthropic"
        async with anthropic.AsyncAnthropic(base_url=url, api_key="sk-ant-client", max_retries=0) as client:
            return await asyncio.gather(*[listen(client) for _ in range(20)])

    assert asyncio.run(main()) == [SAID] * 20


def test_count_tokens(claude, backend):
    assert claude.messages.count_tokens(model=RENAMED, messages=ASK["messages"]).input_tokens == 9
    seen = backend.last()
    assert seen["path"] == "/v1/messages/count_tokens"
    assert seen["headers"]["x-api-key"] == ["sk-ant-configured"]
    assert json.loads(seen["body"])["model"] == "provider-claude"


def test_models(claude):
    models = {model.id: model for model in claude.models.list()}
    assert {MODEL, RENAMED} <= set(models)
    assert models[MODEL].type == "model"
    assert models[MODEL].display_name == MODEL


def test_unknown_model(claude):
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="unknown", **ASK)


def test_malformed(claude):
    with pytest.raises(anthropic.BadRequestError) as error:
        claude.messages.create(model=7, **ASK)
    assert error.value.body["type"] == "error"
    assert "model" in error.value.body["error"]["message"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.APIStatusError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_providers_errors_keep_their_kind_and_words(claude, status, kind, stream):
    headers = {"x-testbackend-status": str(status)}
    with pytest.raises(kind) as error:
        claude.messages.create(model=MODEL, stream=stream, extra_headers=headers, **ASK)
    assert error.value.status_code == status
    assert "test backend" in error.value.body["error"]["message"]


def test_stream_broken_off_is_an_error(claude):
    headers = {"x-testbackend-fault": "reset:4"}
    # What breaks inside a stream the SDK does not wrap.
    with pytest.raises((anthropic.APIError, httpx2.HTTPError)):
        list(claude.messages.create(model=MODEL, stream=True, extra_headers=headers, **ASK))
