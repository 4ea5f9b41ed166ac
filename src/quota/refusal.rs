//! What a client is told whose request does not fit into its limits, in its own dialect.

use std::sync::Arc;

use serde_json::{Value, json};

use super::headers::{duration, headers, moment, until};
use super::{Ask, Counted, Limit, Mode, Reading, Refusal, Window};
use crate::endpoint::Dialect;
use crate::mutation::LocalReply;

/// In Envoy's `response_code_details`, logs and metrics: a limit was reached.
pub const EXCEEDED: &str = "quota_exceeded";
/// In the same places: nobody knows whether it was.
pub const UNAVAILABLE: &str = "quota_unavailable";

/// What resets within that time will be waited for; beyond it, a client had better not try again. In milliseconds.
const DAY: u64 = 24 * 3_600_000;

/// The limit that had no room for a request, and what there is to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts<'a> {
    name: &'a str,
    counted: Counted,
    /// What the request needs at least; nothing where any will do.
    needed: Option<u64>,
    reading: Reading,
    window: Window,
    now: u64,
}

impl Facts<'_> {
    /// The request does not fit even into an empty window.
    fn never(&self) -> bool {
        self.reading.amount == 0 || self.needed.is_some_and(|needed| needed > self.reading.amount)
    }

    /// How long windows are, in milliseconds.
    fn length(&self) -> u64 {
        match self.window {
            Window::InFlight => 0,
            Window::Aligned { start, end, .. } => end.saturating_sub(start),
            Window::Rolling { length } => length,
        }
    }

    /// Whether the client has to change something other than when it asks.
    fn insufficient(&self) -> bool {
        self.never() || matches!(self.counted, Counted::Money(_)) || self.length() > DAY
    }

    /// There would be room, but for what requests in progress may still use.
    fn only_held(&self) -> bool {
        let Reading { amount, spent, held, .. } = self.reading;
        held > 0 && spent.saturating_add(self.needed.unwrap_or(1)) <= amount
    }

    /// When it may be worth asking again, in milliseconds from now.
    fn wait(&self) -> Option<u64> {
        match self.window {
            _ if self.never() => None,
            // Something ends before long, and may leave enough.
            Window::InFlight => Some(1_000),
            _ if self.only_held() => Some(until(&self.reading, self.now).clamp(1, 1_000)),
            _ => Some(until(&self.reading, self.now).max(1)),
        }
    }

    fn amount(&self, amount: u64) -> String {
        match &self.counted {
            Counted::Tokens => format!("{amount} tokens"),
            Counted::Units => format!("{amount} units"),
            Counted::Requests => format!("{amount} requests"),
            Counted::InFlight => format!("{amount} requests at the same time"),
            Counted::Money(currency) => {
                format!("{}.{:06} {currency}", amount / 1_000_000, amount % 1_000_000)
            }
        }
    }

    fn message(&self) -> String {
        let Reading { amount, spent, held, .. } = self.reading;
        let (name, allowed) = (self.name, self.amount(amount));
        let needs = self.needed.map(|needed| self.amount(needed));
        if self.never() {
            let needs = needs.unwrap_or_else(|| self.amount(1));
            return format!(
                "The limit `{name}` allows {allowed}, and this request may need {needs}: it can never be served. Shorten the prompt, or ask for a shorter answer."
            );
        }
        let per = match self.window {
            Window::InFlight => {
                return format!(
                    "The limit `{name}` is reached: {allowed} are allowed, and {held} are being served. Try again when one has ended."
                );
            }
            Window::Aligned { .. } => format!("{allowed} per {}", duration(self.length())),
            Window::Rolling { .. } => format!("{allowed} in any {}", duration(self.length())),
        };
        let needs = needs.map_or_else(String::new, |needs| format!(", this request may need {needs}"));
        let (left, spent, held) =
            (self.amount(self.reading.remaining()), self.amount(spent), self.amount(held));
        let at = until(&self.reading, self.now);
        let (wait, moment) = (duration(at), moment(self.now.saturating_add(at)));
        format!(
            "The limit `{name}` is reached: {per}{needs}; {left} left ({spent} used, {held} reserved by requests in progress). It resets in {wait}, at {moment}."
        )
    }

    fn body(&self, dialect: Dialect) -> Value {
        let message = self.message();
        let code = if self.insufficient() { "insufficient_quota" } else { "rate_limit_exceeded" };
        let details = json!({
            "limit": self.name,
            "unit": match &self.counted {
                Counted::Tokens => "tokens",
                Counted::Units => "units",
                Counted::Requests => "requests",
                Counted::InFlight => "requests_in_flight",
                Counted::Money(_) => "millionths",
            },
            "amount": self.reading.amount,
            "needed": self.needed,
            "remaining": self.reading.remaining(),
            "resets_at": (self.reading.resets_at > 0 && !self.never()).then(|| moment(self.reading.resets_at)),
        });
        match dialect {
            Dialect::OpenAI => {
                let kind = match (&self.counted, self.insufficient()) {
                    (_, true) => code,
                    (Counted::Requests | Counted::InFlight, _) => "requests",
                    _ => "tokens",
                };
                json!({"error": {"message": message, "type": kind, "param": null, "code": code, "quota": details}})
            }
            Dialect::Anthropic => {
                json!({"type": "error", "error": {"type": "rate_limit_error", "message": message, "code": code, "quota": details}})
            }
            Dialect::Cohere => json!({"message": message, "code": code, "quota": details}),
        }
    }
}

/// The limit that a refusal names, if it names one.
pub fn limit<'a>(refusal: &Refusal, limits: &'a [Arc<Limit>]) -> Option<&'a Arc<Limit>> {
    limits.get(refusal.claim)
}

/// The answer to a request that a store has refused. `limits` are those of the claims.
pub fn refused(dialect: Dialect, ask: &Ask, limits: &[Arc<Limit>], refusal: &Refusal) -> LocalReply {
    let named =
        limit(refusal, limits).zip(ask.claims.get(refusal.claim)).zip(refusal.readings.get(refusal.claim));
    let Some(((limit, claim), reading)) = named else { return unavailable(dialect) };
    let needed = claim.bound.at(ask.output.least.min(ask.output.wanted));
    let facts = Facts {
        name: &limit.name,
        counted: limit.counted(),
        needed: (claim.mode == Mode::Reserve).then_some(needed),
        reading: *reading,
        window: claim.window,
        now: refusal.now,
    };
    let mut reply = LocalReply::json(429, EXCEEDED, facts.body(dialect).to_string());
    reply.headers.extend(headers(dialect, limits.iter().zip(&refusal.readings), refusal.now));
    if let Some(wait) = facts.wait() {
        reply.headers.push(("retry-after", wait.div_ceil(1_000).to_string()));
        reply.headers.push(("retry-after-ms", wait.to_string()));
    }
    if facts.insufficient() {
        // The providers' SDKs ask again otherwise, whatever the time to wait.
        reply.headers.push(("x-should-retry", "false".to_owned()));
    }
    reply
}

/// The answer to a request that must not go on while nobody knows what is left.
pub fn unavailable(dialect: Dialect) -> LocalReply {
    let message = "The limits of this gateway cannot be checked at the moment. Try again shortly.";
    let body = match dialect {
        Dialect::OpenAI => {
            json!({"error": {"message": message, "type": "server_error", "param": null, "code": UNAVAILABLE}})
        }
        Dialect::Anthropic => {
            json!({"type": "error", "error": {"type": "api_error", "message": message, "code": UNAVAILABLE}})
        }
        Dialect::Cohere => json!({"message": message, "code": UNAVAILABLE}),
    };
    let mut reply = LocalReply::json(503, UNAVAILABLE, body.to_string());
    reply.headers.push(("retry-after", "1".to_owned()));
    reply
}

#[cfg(test)]
mod tests;
