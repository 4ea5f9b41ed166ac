//! Clients, each with Envoy's end of its exchanges and the provider behind it.

use std::sync::Arc;
use std::time::Duration;

use ai_gateway::proto::ext_proc::ProcessingResponse;
use ai_gateway::proto::ext_proc::body_mutation::Mutation;
use ai_gateway::proto::ext_proc::processing_request::Request as Message;
use ai_gateway::proto::ext_proc::processing_response::Response as Reply;
use serde_json::{Value, json};
use tonic::Status;

use crate::account::{Account, End, Exchange, Flying};
use crate::processors::Reached;
use crate::support::scripted::{Envoy, headers, request_body, response_body, response_headers};
use crate::support::{Dice, within};
use crate::world::{Claims, World};

/// How many there are.
pub(crate) const COUNT: usize = 64;
/// How many exchanges a client has at most that were let in.
const MOST: u32 = 60;
/// After so many refusals in a row nothing will be left.
const ENOUGH: u32 = 4;

/// Whether the provider does what estimates and caps rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    /// A prompt has no more tokens than estimated, an answer no more than asked for.
    Honest,
    /// Prompts have three times the tokens that were estimated, and answers up to three times those that were asked for.
    Wild,
}

/// What all clients of a run share.
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) account: Account,
    pub(crate) processors: Vec<Reached>,
    pub(crate) provider: Provider,
    /// Nothing may be overspent, at no moment.
    pub(crate) strict: bool,
}

/// What a client is going to do.
struct Request {
    body: Value,
    streams: bool,
    /// The client leaves after so many events.
    leaves: Option<u64>,
    fails: bool,
}

/// Why it was not let in.
#[derive(PartialEq, Eq)]
enum Outcome {
    LetIn,
    /// There is too little left.
    NoRoom,
    /// Others have to end first, or somebody has to come back.
    Later,
}

/// Sends requests until there is nothing left to be had.
pub(crate) async fn client(shared: Arc<Shared>, number: usize, seed: u64) {
    let mut dice = Dice::new(seed.wrapping_mul(1000).wrapping_add(number as u64));
    let (mut done, mut refused, mut exchange) = (0, 0, 0);
    while done < MOST && refused < ENOUGH {
        exchange += 1;
        let name = format!("{number}-{exchange}");
        match within("an exchange ends", shared.exchange(number, &name, &mut dice)).await {
            Outcome::LetIn => (done, refused) = (done + 1, 0),
            Outcome::NoRoom => refused += 1,
            // As a client that is told to try again; nothing depends on how long.
            Outcome::Later => tokio::time::sleep(Duration::from_millis(dice.from(5, 20))).await,
        }
    }
}

impl Request {
    fn throw(dice: &mut Dice) -> Self {
        let words = ["the", "quick", "fox", "über", "模型", "42", "{x}"];
        let count = dice.from(1, 200);
        let text: Vec<&str> = (0..count).map(|_| words[dice.from(0, 6) as usize]).collect();
        let streams = dice.percent(50);
        let mut body = json!({
            "model": "m", "stream": streams, "messages": [{"role": "user", "content": text.join(" ")}],
        });
        if dice.percent(70) {
            body["max_tokens"] = dice.from(1, 800).into();
        }
        let leaves = (streams && dice.percent(20)).then(|| dice.from(0, 6));
        Self { body, streams, leaves, fails: dice.percent(5) }
    }
}

impl Shared {
    async fn exchange(&self, client: usize, name: &str, dice: &mut Dice) -> Outcome {
        let request = Request::throw(dice);
        let of = format!("client-{client}");
        let own = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "ai.example"),
            ("content-type", "application/json"),
            ("x-client", of.as_str()),
            ("x-exchange", name),
        ];
        let processor = dice.from(0, self.processors.len() as u64 - 1) as usize;
        let killed_before = self.processors[processor].killed();
        let claims = self.world.claims(&own, request.body.to_string().as_bytes());
        let mut output = None;
        let (end, outcome) = self.run(processor, &own, &request, &claims, &mut output, dice).await;
        self.account.end(Exchange { client, claims, end, output, processor, killed_before });
        outcome
    }

    async fn run(
        &self,
        processor: usize,
        own: &[(&str, &str)],
        request: &Request,
        claims: &Claims,
        output: &mut Option<u64>,
        dice: &mut Dice,
    ) -> (End, Outcome) {
        let Ok(mut envoy) = Envoy::try_open(self.processors[processor].channel.clone()).await else {
            return (End::Unreached, Outcome::Later);
        };
        // One that has just been started says itself that it does not know yet what to do.
        match envoy.send(Some(headers(own))).await {
            Ok(ProcessingResponse { response: Some(Reply::RequestHeaders(_)), .. }) => {}
            _ => return (End::Unreached, Outcome::Later),
        }
        let Ok(reply) = envoy.send(Some(request_body(request.body.clone()))).await else {
            return (End::Unanswered, Outcome::Later);
        };
        let sent = match reply.response {
            Some(Reply::ImmediateResponse(answer)) => {
                let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
                return match answer.status.expect("a status").code {
                    503 => (End::Away, Outcome::Later),
                    429 if body["error"]["quota"]["limit"] == "flying" => (End::Refused, Outcome::Later),
                    429 => (End::Refused, Outcome::NoRoom),
                    status => panic!("{status}: {body}"),
                };
            }
            Some(Reply::RequestBody(_)) => sent(reply, &request.body),
            _ => panic!("{reply:?}"),
        };
        let cap = sent["max_tokens"].as_u64().expect("every answer has a limit");
        assert!(cap <= claims.wanted, "{cap} is more than was asked for: {claims:?}");
        *output = Some(cap);
        let flying = self.account.admit(self.strict);
        let end = self.answer(&mut envoy, request, claims, cap, dice).await;
        // The client has its answer, or has left: only then the processor may let another in.
        let end = finish(flying, envoy, end).await;
        (end, Outcome::LetIn)
    }

    /// The provider answers, and the answer goes through the processor.
    async fn answer(
        &self,
        envoy: &mut Envoy,
        request: &Request,
        claims: &Claims,
        cap: u64,
        dice: &mut Dice,
    ) -> Answered {
        let honest = self.provider == Provider::Honest;
        let held = claims.bound(cap);
        if request.fails {
            let head = [(":status", "500"), ("content-type", "application/json")];
            if envoy.send(Some(response_headers(&head))).await.is_err() {
                return Answered::Ended(End::Cut);
            }
            return Answered::Last(
                response_body(r#"{"error":{"message":"no"}}"#, true),
                End::Failed,
                End::Cut,
            );
        }
        let (prompt, completion) = if honest {
            (dice.from(1, claims.prompt), dice.from(0, cap))
        } else {
            (claims.prompt * 3, dice.from(cap, cap * 3))
        };
        let kind = if request.streams { "text/event-stream" } else { "application/json" };
        if request.leaves.is_some() {
            self.account.deliver(prompt, held, self.strict);
        } else {
            self.account.deliver(prompt + completion, held, self.strict);
        }
        if envoy.send(Some(response_headers(&[(":status", "200"), ("content-type", kind)]))).await.is_err() {
            return Answered::Ended(End::Cut);
        }
        let events = if request.streams { completion.min(8) } else { 0 };
        for event in 0..events {
            if request.leaves.is_some_and(|leaves| event >= leaves) {
                return Answered::Ended(End::Left { events: event, delivered: prompt + event });
            }
            let data = json!({"model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]});
            if request.leaves.is_some() {
                self.account.deliver(1, u64::MAX, self.strict);
            }
            if envoy.send(Some(response_body(format!("data: {data}\n\n"), false))).await.is_err() {
                return Answered::Ended(End::Cut);
            }
            tokio::task::yield_now().await;
        }
        if request.leaves.is_some() {
            return Answered::Ended(End::Left { events, delivered: prompt + events });
        }
        let used = prompt + completion;
        let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": used});
        let body = if request.streams {
            format!("data: {}\n\ndata: [DONE]\n\n", json!({"model": "m", "choices": [], "usage": usage}))
        } else {
            json!({"model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}], "usage": usage})
                .to_string()
        };
        Answered::Last(response_body(body, true), End::Whole(used), End::Unsure(used))
    }
}

/// What is left to be done of an exchange.
enum Answered {
    /// This is the last message; how it ends if it is answered, and if not.
    Last(Message, End, End),
    /// Nothing more will be sent.
    Ended(End),
}

/// Ends an exchange: it is no longer in flight from the moment on in which its end is told.
async fn finish(flying: Flying<'_>, mut envoy: Envoy, end: Answered) -> End {
    drop(flying);
    match end {
        Answered::Last(message, end, unsure) => {
            let reply: Result<ProcessingResponse, Status> = envoy.send(Some(message)).await;
            if reply.is_ok() { end } else { unsure }
        }
        Answered::Ended(end) => end,
    }
}

/// The request's body as it goes to the provider.
fn sent(reply: ProcessingResponse, body: &Value) -> Value {
    let Some(Reply::RequestBody(reply)) = reply.response else { panic!("another phase") };
    match reply.response.and_then(|common| common.body_mutation).and_then(|body| body.mutation) {
        Some(Mutation::Body(body)) => serde_json::from_slice(&body).expect("JSON"),
        _ => body.clone(),
    }
}
