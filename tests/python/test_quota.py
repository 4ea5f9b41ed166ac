"""Limits, as users of the SDKs meet them."""

import anthropic
import openai
import pytest

MESSAGES = [{"role": "user", "content": "Hi."}]


def ask(client, model, **more):
    return client.chat.completions.create(model=model, messages=MESSAGES, **more)


def test_a_limit_that_is_reached_is_a_rate_limit_error(client):
    raw = client.chat.completions.with_raw_response.create(model="hourly-model", messages=MESSAGES, stream=True)
    assert raw.headers["x-ratelimit-limit-requests"] == "1"
    assert raw.headers["x-ratelimit-remaining-requests"] == "0"
    assert list(raw.parse())
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "hourly-model")
    error = caught.value
    assert (error.status_code, error.code, error.type) == (429, "rate_limit_exceeded", "requests")
    assert "`hourly`" in error.message
    assert 1 <= int(error.response.headers["retry-after"]) <= 3661
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_request_that_can_never_fit_is_not_tried_again(client):
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client.with_options(max_retries=5), "tiny-model")
    assert caught.value.code == "insufficient_quota"
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"


def test_the_sdk_waits_for_the_window_and_succeeds(client):
    patient = client.with_options(max_retries=8)
    for _ in range(3):
        assert ask(patient, "window-model").choices


def test_anthropics_sdk_raises_and_waits_too(claude):
    def ask(client, model):
        return client.messages.create(model=model, max_tokens=16, messages=MESSAGES)

    raw = claude.messages.with_raw_response.create(model="claude-hourly", max_tokens=16, messages=MESSAGES)
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "0"
    with pytest.raises(anthropic.RateLimitError) as caught:
        ask(claude, "claude-hourly")
    assert caught.value.body["error"]["type"] == "rate_limit_error"
    assert caught.value.body["error"]["quota"]["limit"] == "hourly-of-claude"
    patient = claude.with_options(max_retries=8)
    for _ in range(3):
        assert ask(patient, "claude-window").content
