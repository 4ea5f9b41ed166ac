"""The OpenAI SDK, as its users use it, through the gateway."""

import asyncio
import json

import openai
import pytest

MODEL = "test-model"
MESSAGES = [{"role": "user", "content": "Hi."}]
SAID = "I am inevitable."
NO_ROUTE = (
    "No matching route found. It is likely that the model specified your request is not configured in the Gateway"
)


def said(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_chat(client, backend):
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert completion.choices[0].message.content == SAID
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == MODEL
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (9, 11, 20)
    seen = backend.last()
    assert seen["headers"]["authorization"] == ["Bearer sk-configured"]
    assert json.loads(seen["body"]) == {"model": MODEL, "messages": MESSAGES}


def test_chat_raw_headers(client):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.headers["content-type"] == "application/json"
    assert not any("sk-configured" in value for value in raw.headers.values())
    assert raw.parse().choices[0].message.content == SAID


def test_streaming_hides_usage_that_was_not_asked_for(client, backend):
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert said(chunks) == SAID
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(c.usage is None for c in chunks)
    assert all(c.choices for c in chunks)
    assert json.loads(backend.last()["body"])["stream_options"]["include_usage"] is True


def test_streaming_with_usage(client):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options=options))
    assert said(chunks) == SAID
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 20
    assert all(c.usage is None for c in chunks[:-1])


def test_streaming_helper_accumulates(client):
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        for _ in stream:
            pass
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == SAID


def test_streaming_left_early(client):
    headers = {"x-testbackend-fault": "endless"}
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, extra_headers=headers)
    for _, chunk in zip(range(5), stream):
        assert chunk.choices
    stream.close()
    assert client.chat.completions.create(model=MODEL, messages=MESSAGES).choices


def test_compressed_answers(client):
    headers = {"x-testbackend-encoding": "gzip"}
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers=headers)
    assert completion.usage.total_tokens == 20
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, extra_headers=headers))
    assert said(chunks) == SAID


def test_async(base_url):
    async def ask(client):
        completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
        return completion.choices[0].message.content

    async def listen(client):
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        return said([chunk async for chunk in stream])

    async def main():
        async with openai.AsyncOpenAI(base_url=base_url, api_key="sk-client", max_retries=0) as client:
            return await asyncio.gather(*[ask(client) for _ in range(20)], *[listen(client) for _ in range(20)])

    assert asyncio.run(main()) == [SAID] * 40


def test_completions(client):
    completion = client.completions.create(model=MODEL, prompt="Hi.")
    assert completion.choices[0].text == SAID
    assert completion.usage.total_tokens == 20
    chunks = list(client.completions.create(model=MODEL, prompt="Hi.", stream=True))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == SAID
    assert all(c.usage is None for c in chunks)


def test_embeddings(client, backend):
    # By default the SDK asks for base64 and decodes it.
    as_default = client.embeddings.create(model=MODEL, input=["a", "b"], dimensions=4)
    assert json.loads(backend.last()["body"])["encoding_format"] == "base64"
    as_floats = client.embeddings.create(model=MODEL, input=["a", "b"], dimensions=4, encoding_format="float")
    assert [e.embedding for e in as_default.data] == [e.embedding for e in as_floats.data]
    assert as_floats.data[0].embedding == [-1.0, -0.9375, -0.875, -0.8125]
    assert as_floats.usage.prompt_tokens == 9


def test_models(client):
    models = {model.id: model for model in client.models.list()}
    assert {"down-model", "renamed-model", MODEL} <= set(models)
    assert models[MODEL].object == "model"


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="unknown", messages=MESSAGES)
    assert error.value.response.text == NO_ROUTE


def test_unknown_path(client):
    with pytest.raises(openai.NotFoundError):
        client.post("/unheard-of", cast_to=object, body={"model": MODEL})


def test_malformed(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=7, messages=MESSAGES)
    assert "model" in error.value.body["message"]
    with pytest.raises(openai.BadRequestError) as error:
        client.post("/chat/completions", cast_to=object, content=b'{"model":', options={"headers": {"content-type": "application/json"}})
    assert "column" in error.value.body["message"]


def test_too_large(client):
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x" * (2 << 20)}])
    assert error.value.status_code == 413


def test_backend_down(client):
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(model="down-model", messages=MESSAGES)
    assert error.value.status_code == 503


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_providers_errors_keep_their_kind_and_words(client, status, kind, stream):
    headers = {"x-testbackend-status": str(status)}
    with pytest.raises(kind) as error:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=stream, extra_headers=headers)
    assert "test backend" in error.value.body["message"]


@pytest.mark.parametrize("fault", ["reset", "reset:2", "close:2"])
def test_stream_broken_off_is_an_error(client, fault):
    headers = {"x-testbackend-fault": fault}
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, extra_headers=headers))
