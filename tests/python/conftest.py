"""The gateway and its backend are started by whoever runs pytest; here is where they are."""

import json
import os
import urllib.request

import anthropic
import openai
import pytest


def required(name):
    value = os.environ.get(name)
    if not value:
        pytest.exit(f"{name} is not set; these tests are run by `cargo test --test it sdk`", returncode=4)
    return value


@pytest.fixture(scope="session")
def base_url():
    return required("AIGW_URL") + "/v1"


@pytest.fixture
def client(base_url):
    with openai.OpenAI(base_url=base_url, api_key="sk-client", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def claude():
    url = required("AIGW_URL") + "/anthropic"
    with anthropic.Anthropic(base_url=url, api_key="sk-ant-client", max_retries=0, timeout=60) as client:
        yield client


class Backend:
    """What the test backend has on record."""

    def __init__(self, url):
        self.url = url

    def last(self):
        with urllib.request.urlopen(self.url + "/testbackend/requests?last=1") as answer:
            return json.load(answer)[0]


@pytest.fixture
def backend():
    return Backend(required("TESTBACKEND_URL"))
