"""The OpenAI SDK's calls beside completions and embeddings: responses, images, audio, and what has no method of its own."""

import base64
import email
import io
import json

import openai
import pytest

MODEL = "test-model"
# The gateway asks the provider for `provider-model` instead.
RENAMED = "renamed-model"
SAID = "I am inevitable."
SPEECH = b"ID3" + bytes(range(256)) * 16
# Every byte there is, a line break before dashes, and a text that looks like a field.
RECORDING = bytes(range(256)) + b'\r\n--nothing\r\ncontent-disposition: form-data; name="model"\r\n\r\nfake\r\n' + b"\0" * 5000


def sent(seen):
    """The fields of the form that the provider received."""
    body = seen["body"]
    raw = base64.b64decode(body["base64"]) if isinstance(body, dict) else body.encode()
    kind = seen["headers"]["content-type"][0]
    assert kind.startswith("multipart/form-data; boundary=")
    assert seen["headers"].get("content-length", [str(len(raw))]) == [str(len(raw))]
    form = email.message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + raw)
    assert not form.defects
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in form.get_payload()}


def test_responses(client, backend):
    response = client.responses.create(model=MODEL, input="Hi.")
    assert response.output_text == SAID
    assert response.status == "completed"
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (9, 11, 20)
    seen = backend.last()
    assert seen["path"] == "/v1/responses"
    assert seen["headers"]["authorization"] == ["Bearer sk-configured"]
    assert json.loads(seen["body"]) == {"model": MODEL, "input": "Hi."}


def test_responses_of_a_renamed_model(client, backend):
    assert client.responses.create(model=RENAMED, input=[{"role": "user", "content": "Hi."}]).model == "provider-model"
    assert json.loads(backend.last()["body"])["model"] == "provider-model"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_responses_streaming(client, encoding):
    headers = {"x-testbackend-encoding": encoding}
    events = list(client.responses.create(model=MODEL, input="Hi.", stream=True, extra_headers=headers))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.total_tokens == 20


def test_responses_streaming_helper_accumulates(client):
    with client.responses.stream(model=MODEL, input="Hi.") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == SAID


def test_responses_streaming_left_early(client):
    headers = {"x-testbackend-fault": "endless"}
    stream = client.responses.create(model=MODEL, input="Hi.", stream=True, extra_headers=headers)
    for _, event in zip(range(20), stream):
        assert event.type
    stream.close()
    assert client.responses.create(model=MODEL, input="Hi.").output_text == SAID


def test_responses_input_tokens(client, backend):
    assert client.responses.input_tokens.count(model=MODEL, input="Hi.").input_tokens == 9
    assert backend.last()["path"] == "/v1/responses/input_tokens"


def test_images(client, backend):
    answer = client.images.generate(model=MODEL, prompt="A dot.", n=2)
    assert len(answer.data) == 2
    assert base64.b64decode(answer.data[0].b64_json).startswith(b"\x89PNG\r\n")
    assert answer.usage.total_tokens == 20
    assert backend.last()["path"] == "/v1/images/generations"


def test_speech(client, backend):
    speech = client.audio.speech.create(model=RENAMED, voice="alloy", input="Hi.", response_format="mp3")
    assert speech.content == SPEECH
    assert speech.response.headers["content-type"] == "audio/mpeg"
    seen = backend.last()
    assert seen["path"] == "/v1/audio/speech"
    assert json.loads(seen["body"])["model"] == "provider-model"


def test_speech_in_pieces(client):
    headers = {"x-testbackend-chunks": "50"}
    create = client.audio.speech.with_streaming_response.create
    with create(model=MODEL, voice="alloy", input="Hi.", extra_headers=headers) as speech:
        assert b"".join(speech.iter_bytes()) == SPEECH


def test_speech_as_events(client):
    create = client.audio.speech.with_streaming_response.create
    with create(model=MODEL, voice="alloy", input="Hi.", stream_format="sse") as speech:
        assert speech.headers["content-type"] == "text/event-stream"
        lines = [line for line in speech.iter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    audio = [base64.b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta"]
    assert b"".join(audio) == SPEECH
    assert events[-1]["usage"]["total_tokens"] == 20


def recording():
    file = io.BytesIO(RECORDING)
    file.name = "recording.wav"
    return file


@pytest.mark.parametrize(("model", "provider_model"), [(MODEL, MODEL), (RENAMED, "provider-model")])
@pytest.mark.filterwarnings("ignore:deprecated")
@pytest.mark.parametrize("call", ["transcriptions", "translations"])
def test_recordings(client, backend, call, model, provider_model):
    create = getattr(client.audio, call).with_raw_response.create
    raw = create(model=model, file=recording(), prompt="Titans", temperature=0.5)
    assert raw.parse().text == SAID
    assert raw.headers["x-testbackend-model"] == provider_model
    seen = backend.last()
    assert seen["path"] == f"/v1/audio/{call}"
    assert seen["headers"]["authorization"] == ["Bearer sk-configured"]
    fields = sent(seen)
    assert fields["file"] == RECORDING
    assert fields["model"] == provider_model.encode()
    assert fields["prompt"] == b"Titans"
    assert fields["temperature"] == b"0.5"


def test_transcription_usage(client):
    usage = client.audio.transcriptions.create(model=MODEL, file=recording()).usage
    assert (usage.input_tokens, usage.output_tokens) == (9, 11)


def test_transcription_as_text(client):
    text = client.audio.transcriptions.create(model=MODEL, file=recording(), response_format="text")
    assert text == SAID + "\n"


def test_transcription_streaming(client, backend):
    events = list(client.audio.transcriptions.create(model=RENAMED, file=recording(), stream=True))
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == SAID
    assert events[-1].text == SAID
    assert events[-1].usage.total_tokens == 20
    assert sent(backend.last())["file"] == RECORDING


def test_transcription_without_a_model(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.post("/audio/transcriptions", cast_to=object, files={"file": recording()}, options={"headers": {"content-type": "multipart/form-data"}})
    assert "model" in error.value.body["message"]


def test_unknown_models(client):
    for call in (
        lambda: client.responses.create(model="unknown", input="Hi."),
        lambda: client.images.generate(model="unknown", prompt="A dot."),
        lambda: client.audio.speech.create(model="unknown", voice="alloy", input="Hi."),
        lambda: client.audio.transcriptions.create(model="unknown", file=recording()),
    ):
        with pytest.raises(openai.NotFoundError):
            call()


@pytest.mark.parametrize("stream", [False, True])
def test_providers_errors_keep_their_kind_and_words(client, stream):
    headers = {"x-testbackend-status": "429"}
    with pytest.raises(openai.RateLimitError) as error:
        client.responses.create(model=MODEL, input="Hi.", stream=stream, extra_headers=headers)
    assert "test backend" in error.value.body["message"]
    with pytest.raises(openai.RateLimitError):
        client.audio.transcriptions.create(model=MODEL, file=recording(), extra_headers=headers)


def test_stream_broken_off_is_an_error(client):
    headers = {"x-testbackend-fault": "reset:5"}
    with pytest.raises(openai.APIError):
        list(client.responses.create(model=MODEL, input="Hi.", stream=True, extra_headers=headers))


def test_tokenize(base_url, client, backend):
    url = base_url.removesuffix("/v1") + "/tokenize"
    answer = client.post(url, cast_to=object, body={"model": RENAMED, "prompt": "Hi."})
    assert answer["count"] == 9
    seen = backend.last()
    assert (seen["path"], json.loads(seen["body"])["model"]) == ("/tokenize", "provider-model")


def test_rerank(base_url, client, backend):
    url = base_url.removesuffix("/v1") + "/cohere/v2/rerank"
    body = {"model": "rerank-model", "query": "q", "documents": ["a", "b", "c"], "top_n": 2}
    answer = client.post(url, cast_to=object, body=body)
    assert [result["index"] for result in answer["results"]] == [0, 1]
    seen = backend.last()
    assert seen["path"] == "/v2/rerank"
    assert seen["headers"]["authorization"] == ["Bearer co-configured"]
    assert json.loads(seen["body"]) == body
