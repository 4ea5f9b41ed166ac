//! The test's own account of what was let in and delivered.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::{AMOUNT, Claims, FLYING, Later};

/// How an exchange ended, as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// There was no room.
    Refused,
    /// Nobody could say whether there was.
    Away,
    /// No processor has read the request.
    Unreached,
    /// A processor may have read the request, and is gone.
    Unanswered,
    /// The provider answered with an error.
    Failed,
    /// It went to its end, and used so many tokens.
    Whole(u64),
    /// The client went away after so many events, when the provider had counted so many tokens, which nobody was told of.
    Left { events: u64, delivered: u64 },
    /// The processor went away in the middle of the answer.
    Cut,
    /// The processor went away when all had been sent: it may have known that so many tokens were used.
    Unsure(u64),
}

/// One exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) client: usize,
    pub(crate) claims: Claims,
    pub(crate) end: End,
    /// How long the answer may get, once it was let in.
    pub(crate) output: Option<u64>,
    /// Its processor was killed while it ran, or later: what it had not told Redis is lost.
    pub(crate) processor: usize,
    pub(crate) killed_before: u64,
}

/// What Redis is told in a fault is there afterwards, or may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// What Redis has acknowledged it knows.
    Yes,
    /// What it acknowledged last may be lost.
    No,
}

/// All of a run.
#[derive(Debug, Default)]
pub(crate) struct Account {
    delivered: AtomicU64,
    flying: AtomicU64,
    most_flying: AtomicU64,
    /// How often the end of an exchange was that nobody could say.
    pub(crate) away: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) admitted: AtomicU64,
    /// The most that Redis was seen to count as spent and held.
    pub(crate) seen: AtomicU64,
    /// By how much exchanges have used more than was held for them, at most.
    excesses: Mutex<Vec<u64>>,
    exchanges: Mutex<Vec<Exchange>>,
}

/// What a run came to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sums {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) away: u64,
    /// Tokens that the provider has counted.
    pub(crate) delivered: u64,
    /// Tokens that Redis has counted.
    pub(crate) spent: u64,
    /// The most that was seen spent and held at once.
    pub(crate) seen: u64,
    /// Exchanges that ended with their processor, and are charged what was held for them.
    pub(crate) expired: u64,
    pub(crate) left: u64,
    pub(crate) most_flying: u64,
    /// By how much the provider counted more than the limit.
    pub(crate) overspend: u64,
    /// By how much Redis counted more than the limit.
    pub(crate) overcharge: u64,
    /// What that can be at most: the largest excesses, of as many exchanges as may be in flight at once.
    pub(crate) excess_in_flight: u64,
    /// What exchanges have used beyond their estimates that ended before anybody was told what they used.
    pub(crate) untold: u64,
}

impl Account {
    /// Tokens that the provider has counted so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }

    /// A request is let in. Dropping what is returned says that it has ended.
    pub(crate) fn admit(&self, strict: bool) -> Flying<'_> {
        let now = self.flying.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_flying.fetch_max(now, Ordering::SeqCst);
        self.admitted.fetch_add(1, Ordering::SeqCst);
        assert!(now <= FLYING || !strict, "{now} requests in flight, of {FLYING}");
        Flying(self)
    }

    /// The provider has done work for so many tokens, for which so many had been held.
    pub(crate) fn deliver(&self, tokens: u64, held: u64, strict: bool) {
        let now = self.delivered.fetch_add(tokens, Ordering::SeqCst) + tokens;
        if tokens > held {
            self.excesses.lock().expect("no panic").push(tokens - held);
        }
        assert!(now <= AMOUNT || !strict, "{now} tokens delivered, of {AMOUNT}");
    }

    pub(crate) fn end(&self, exchange: Exchange) {
        match exchange.end {
            End::Away => self.away.fetch_add(1, Ordering::SeqCst),
            End::Refused => self.refused.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
        self.exchanges.lock().expect("no panic").push(exchange);
    }

    /// Holds the account against what Redis will count when every lease has run out: nothing is held, nothing was charged twice or
    /// lost. `kills` is how often each processor was killed.
    pub(crate) async fn settle(&self, later: &Later, kills: &[u64], durable: Durable) -> Sums {
        let exchanges = std::mem::take(&mut *self.exchanges.lock().expect("no panic"));
        let mut sums = Sums::default();
        let mut of_clients: HashMap<usize, u64> = HashMap::new();
        for exchange in &exchanges {
            let (spent, held) = later.look(&exchange.claims.own).await;
            assert_eq!(held, 0, "it is held for ever: {exchange:?}");
            let expired = exchange.check(spent, kills, durable);
            sums.expired += u64::from(expired);
            if let End::Left { delivered, .. } = exchange.end {
                sums.left += 1;
                sums.untold += delivered.saturating_sub(spent);
            }
            sums.spent += spent;
            *of_clients.entry(exchange.client).or_default() += spent;
        }
        let any = &exchanges.first().expect("exchanges").claims;
        assert_eq!(later.look(&any.all).await, (sums.spent, 0), "all together, and each by itself");
        assert_eq!(later.look(&any.flying).await, (0, 0));
        let mut seen = HashMap::new();
        for exchange in &exchanges {
            if seen.insert(exchange.client, ()).is_none() {
                let counted = later.look(&exchange.claims.client).await;
                assert_eq!(counted, (of_clients[&exchange.client], 0), "client {}", exchange.client);
            }
        }
        let load = |count: &AtomicU64| count.load(Ordering::SeqCst);
        (sums.admitted, sums.refused, sums.away) =
            (load(&self.admitted), load(&self.refused), load(&self.away));
        (sums.delivered, sums.seen, sums.most_flying) =
            (self.delivered(), load(&self.seen), load(&self.most_flying));
        sums.overspend = sums.delivered.saturating_sub(AMOUNT);
        sums.overcharge = sums.spent.saturating_sub(AMOUNT);
        let mut excesses = std::mem::take(&mut *self.excesses.lock().expect("no panic"));
        excesses.sort_unstable_by(|a, b| b.cmp(a));
        sums.excess_in_flight = excesses.iter().take(usize::try_from(FLYING).expect("few")).sum();
        sums
    }
}

/// An exchange that has not ended.
pub(crate) struct Flying<'a>(&'a Account);

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        self.0.flying.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Exchange {
    /// Whether that is what it may have been charged. Returned is whether its lease ran out.
    fn check(&self, spent: u64, kills: &[u64], durable: Durable) -> bool {
        let killed = kills[self.processor] > self.killed_before;
        let bound = self.claims.bound(self.output.unwrap_or(self.claims.wanted));
        let due = match self.end {
            End::Refused | End::Away | End::Unreached | End::Failed => spent == 0,
            End::Whole(used) => spent == used,
            // What was delivered, and the prompt.
            End::Left { events, .. } => spent > events && spent <= bound,
            End::Unsure(used) => killed && spent == used,
            End::Unanswered => killed && spent == 0,
            End::Cut => false,
        };
        // Whoever held it is gone before Redis was told.
        let asked = !matches!(self.end, End::Refused | End::Unreached);
        let expired = killed && asked && !due && (spent == bound || self.output.is_none() && spent < bound);
        let lost = durable == Durable::No && asked && (spent == 0 || spent == bound);
        assert!(due || expired || lost, "charged {spent}, bound {bound}, killed {killed}: {self:?}");
        expired
    }
}
