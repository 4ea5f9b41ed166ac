"""The OpenAI SDK against a model that Azure OpenAI serves, and its Azure client as far as its paths are the gateway's."""

import json

import openai
import pytest

# The gateway asks for the deployment `azure-deployment` instead.
MODEL = "azure-model"
VERSION = "2025-01-01-preview"
MESSAGES = [{"role": "user", "content": "Hi."}]
SAID = "I am inevitable."


@pytest.fixture
def azure(base_url):
    with openai.AzureOpenAI(
        base_url=base_url, api_key="azure-client", api_version="2024-06-01", max_retries=0, timeout=60
    ) as client:
        yield client


def received(backend):
    """Path and body of what the provider was sent, with the configured key and no other."""
    seen = backend.last()
    headers = seen["headers"]
    assert headers["api-key"] == ["azure-configured"]
    assert "authorization" not in headers
    return seen["path"], json.loads(seen["body"])


def test_chat(client, backend):
    completion = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert completion.choices[0].message.content == SAID
    assert completion.usage.total_tokens == 20
    path, body = received(backend)
    assert path == f"/openai/deployments/azure-deployment/chat/completions?api-version={VERSION}"
    assert body["messages"] == MESSAGES


def test_streaming(client, backend):
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
    assert all(chunk.usage is None for chunk in chunks)
    _, body = received(backend)
    assert body["stream_options"]["include_usage"] is True


def test_embeddings(client, backend):
    answer = client.embeddings.create(model=MODEL, input=["a", "b"])
    assert [item.index for item in answer.data] == [0, 1]
    path, body = received(backend)
    assert path == f"/openai/deployments/azure-deployment/embeddings?api-version={VERSION}"
    assert (body["model"], body["input"]) == ("azure-deployment", ["a", "b"])


def test_azures_client_has_responses(azure, backend):
    response = azure.responses.create(model=MODEL, input="Hi.")
    assert response.output_text == SAID
    path, body = received(backend)
    # The version is the configuration's, not the client's.
    assert path == f"/openai/responses?api-version={VERSION}"
    assert body == {"model": "azure-deployment", "input": "Hi."}


def test_azures_client_is_told_that_its_chat_path_is_not_served(azure):
    with pytest.raises(openai.NotFoundError) as refused:
        azure.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert "unsupported path: /v1/deployments/azure-model/chat/completions" in refused.value.response.text


def test_an_endpoint_azure_has_not(client):
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.completions.create(model=MODEL, prompt="Hi.")
    assert "does not serve /v1/completions" in str(refused.value)
