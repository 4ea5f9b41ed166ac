"""Who may use what, as the SDKs' users see it: which calls work, and which exception the others raise."""

import json
import os

import anthropic
import openai
import pytest

SCENE = json.loads(os.environ.get("AIGW_TENANTS", "{}"))
ASK = {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}
SAID = "I am inevitable."


def by_openai(gateway, credential, model):
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key=credential, max_retries=0, timeout=60) as client:
        return client.chat.completions.create(model=model, **ASK).choices[0].message.content


def streamed_by_openai(gateway, credential, model):
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key=credential, max_retries=0, timeout=60) as client:
        chunks = client.chat.completions.create(model=model, stream=True, **ASK)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def by_anthropic(gateway, credential, model):
    """The key as `x-api-key`."""
    url = f"{gateway}/anthropic"
    with anthropic.Anthropic(base_url=url, api_key=credential, max_retries=0, timeout=60) as client:
        return client.messages.create(model=f"claude-{model}", **ASK).content[0].text


def by_anthropic_token(gateway, credential, model):
    """The key as a bearer."""
    url = f"{gateway}/anthropic"
    with anthropic.Anthropic(base_url=url, auth_token=credential, max_retries=0, timeout=60) as client:
        return client.messages.create(model=f"claude-{model}", **ASK).content[0].text


OPENAI = [(by_openai, openai), (streamed_by_openai, openai)]
BY_KEY = [*OPENAI, (by_anthropic, anthropic), (by_anthropic_token, anthropic)]
BY_TOKEN = [*OPENAI, (by_anthropic_token, anthropic)]
# How each gateway is asked: the one with keys of its own, and those whose policies ask for keys and for tokens.
ASKED = {
    "keys": BY_KEY,
    "apiKeyAuth-gateway": BY_KEY,
    "apiKeyAuth-route": BY_KEY,
    "jwt-gateway": BY_TOKEN,
    "jwt-route": BY_TOKEN,
}
CASES = [
    pytest.param(place, case, call, sdk, id=f"{place}-{case['name']}-{call.__name__}")
    for place, gateway in SCENE.items()
    for case in gateway["cases"]
    for call, sdk in ASKED[place]
]


@pytest.mark.parametrize(("place", "case", "call", "sdk"), CASES)
def test_a_call_works_or_raises_what_its_sdk_has_for_it(place, case, call, sdk):
    gateway = SCENE[place]["url"]
    arguments = (gateway, case["credential"], case.get("model", "m"))
    if case["status"] == 200:
        assert call(*arguments) == SAID
        return
    expected = {
        401: sdk.AuthenticationError,
        403: sdk.PermissionDeniedError,
        404: sdk.NotFoundError,
    }[case["status"]]
    with pytest.raises(expected) as raised:
        call(*arguments)
    error = raised.value
    assert error.status_code == case["status"]
    told = f"{error} {error.response.text} {error.response.headers}"
    assert case["credential"] not in told
    if case["status"] == 404:
        # A sentence in plain text, as clients of such gateways know it.
        assert error.response.text.startswith("No matching route found")
    elif sdk is openai:
        # Read as the SDK reads an error of its own provider.
        assert error.message and error.type
    else:
        kind = {401: "authentication_error", 403: "permission_error"}[case["status"]]
        assert (error.body["type"], error.body["error"]["type"]) == ("error", kind)


@pytest.mark.parametrize("place", SCENE)
def test_all_that_is_wrong_with_a_credential_is_told_alike(place):
    cases = [case for case in SCENE[place]["cases"] if case.get("alike")]
    assert len(cases) > 1
    for call, sdk in ASKED[place]:
        told = set()
        for case in cases:
            with pytest.raises(sdk.AuthenticationError) as raised:
                call(SCENE[place]["url"], case["credential"], "m")
            told.add(raised.value.response.text)
        assert len(told) == 1, told


@pytest.mark.parametrize("place", SCENE)
def test_each_is_listed_its_own_models(place):
    gateway = SCENE[place]
    for credential, models in gateway["lists"]:
        with openai.OpenAI(base_url=f"{gateway['url']}/v1", api_key=credential, max_retries=0) as client:
            assert sorted(model.id for model in client.models.list()) == sorted(models)
