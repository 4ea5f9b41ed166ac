//! L4. Keeps fetched credentials fresh: in the background, ahead of their end, whatever requests do.
//!
//! Requests read cells ([`crate::auth::Cell`]) and never wait. A fetch that fails leaves what is there until it expires. Runtimes
//! come and go; a credential that two of them share is fetched once.

mod aws;
mod azure;
mod gcp;
mod http;
mod oidc;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::auth::{Cell, Held, Source, SourceId};
use crate::runtime::Runtime;

/// Why a credential could not be fetched. Names no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(String);

/// Fetches credentials; the real one is [`Providers`].
pub trait Fetch: Send + Sync + 'static {
    /// Asks once. Ends within a minute.
    fn fetch(&self, source: &Source) -> impl Future<Output = Result<Held, FetchError>> + Send;
}

/// Tells the time by the wall clock.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The environment.
type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Fetches from where the providers give them out.
#[derive(Clone)]
pub struct Providers {
    client: http::Client,
    endpoints: Endpoints,
    variables: Variables,
    clock: Clock,
}

/// Where Google is, for what a credentials file does not say.
#[derive(Clone)]
struct Endpoints {
    gcp_token: String,
    gcp_sts: String,
    gcp_iam: String,
}

impl Providers {
    /// `variables` are those of the environment.
    pub fn new(variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static, clock: Clock) -> Self {
        let endpoints = Endpoints {
            gcp_token: "https://oauth2.googleapis.com/token".to_owned(),
            gcp_sts: "https://sts.googleapis.com/v1/token".to_owned(),
            gcp_iam: "https://iamcredentials.googleapis.com".to_owned(),
        };
        Self { client: http::Client::default(), endpoints, variables: Arc::new(variables), clock }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.variables)(name).filter(|value| !value.is_empty())
    }

    /// The proxy for a URL: the one that this variable names, else that of all programs.
    fn proxy(&self, own: &str, url: &str) -> Option<String> {
        let general = |name: &str| self.variable(name).or_else(|| self.variable(&name.to_ascii_lowercase()));
        self.variable(own).or_else(|| {
            let proxy = url.starts_with("https://").then(|| general("HTTPS_PROXY"))??;
            let spared = general("NO_PROXY").is_some_and(|list| http::is_spared(url, &list));
            (!spared).then_some(proxy)
        })
    }

    fn now(&self) -> SystemTime {
        (self.clock)()
    }
}

impl Fetch for Providers {
    async fn fetch(&self, source: &Source) -> Result<Held, FetchError> {
        match source {
            Source::AwsChain { region } => self.aws_chain(region).await,
            Source::AwsRole { role, session, region, issuer } => {
                self.aws_role(role, session, region, issuer).await
            }
            Source::GcpDefault => self.gcp_default().await,
            Source::GcpFile(text) => self.gcp_file(text).await,
            Source::GcpFederation { audience, service_account, issuer } => {
                self.gcp_federation(audience, service_account.as_deref(), issuer).await
            }
            Source::Azure { tenant, client, secret, authority } => {
                self.azure(tenant, client, secret, authority.as_deref()).await
            }
        }
    }
}

/// Knows all credentials that have to be kept fresh, and does so while [`Keeper::run`] is polled.
#[derive(Debug, Clone)]
pub struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kept: Mutex<BTreeMap<SourceId, Kept>>,
    adopted: Notify,
    /// Counts fetches that have ended.
    fetched: watch::Sender<u64>,
}

impl Default for Keeper {
    fn default() -> Self {
        let (kept, adopted, fetched) = (Mutex::default(), Notify::new(), watch::Sender::new(0));
        Self(Arc::new(Shared { kept, adopted, fetched }))
    }
}

#[derive(Debug)]
struct Kept {
    source: Source,
    /// Those of all runtimes that are still there.
    cells: Vec<(Arc<str>, Weak<Cell>)>,
    held: Option<Arc<Held>>,
    /// Whether a task looks after it.
    tended: bool,
    /// In a row.
    failures: u32,
    all_failures: u64,
    problem: Option<FetchError>,
}

/// How one service's credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `namespace/name` of the AIServiceBackend.
    pub service: Arc<str>,
    /// Where it comes from.
    pub kind: &'static str,
    /// Whether there is one.
    pub fetched: bool,
    /// Until when it may be used; absent: for good, or there is none.
    pub expires: Option<SystemTime>,
    /// Fetches that failed since the start.
    pub failures: u64,
    /// Why the last fetch failed, if it did.
    pub problem: Option<FetchError>,
}

/// A task looks at least this often whether anybody still needs what it keeps.
const LOOK: Duration = Duration::from_secs(30);
/// What does not expire may have changed all the same.
const REREAD: Duration = Duration::from_secs(600);
/// As long as a fetch may take, all its requests together.
const FETCH_TIMEOUT: Duration = Duration::from_secs(45);
/// The longest wait after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

impl Keeper {
    /// From now on the runtime's credentials are kept fresh, for as long as it is there. Those that are known are filled at once.
    pub fn adopt(&self, runtime: &Runtime) {
        let mut kept = self.kept();
        for (service, cell) in runtime.cells() {
            let entry = kept.entry(cell.source().identity()).or_insert_with(|| Kept {
                source: cell.source().clone(),
                cells: Vec::new(),
                held: None,
                tended: false,
                failures: 0,
                all_failures: 0,
                problem: None,
            });
            entry.cells.retain(|(_, cell)| cell.strong_count() > 0);
            if !entry.cells.iter().any(|(_, known)| known.as_ptr() == Arc::as_ptr(cell)) {
                entry.cells.push((Arc::clone(service), Arc::downgrade(cell)));
            }
            if let Some(held) = &entry.held {
                cell.fill(Arc::clone(held));
            }
        }
        drop(kept);
        self.0.adopted.notify_one();
    }

    /// Waits until each of the runtime's credentials was fetched or failed once, `within` at most. So that a change of
    /// configuration does not refuse requests for want of a credential that is on its way.
    pub async fn ready(&self, runtime: &Runtime, within: Duration) {
        self.adopt(runtime);
        let mut fetched = self.0.fetched.subscribe();
        let settled = |keeper: &Self| {
            let kept = keeper.kept();
            runtime.cells().iter().all(|(_, cell)| {
                cell.is_filled() || kept.get(&cell.source().identity()).is_none_or(|kept| kept.failures > 0)
            })
        };
        let all = async {
            while !settled(self) {
                if fetched.changed().await.is_err() {
                    return;
                }
            }
        };
        // What is late is fetched all the same.
        let _ = tokio::time::timeout(within, all).await;
    }

    /// How all credentials are, in order of the services' names.
    pub fn status(&self) -> Vec<Status> {
        let kept = self.kept();
        let mut all = Vec::new();
        for kept in kept.values() {
            for service in kept.services() {
                all.push(Status {
                    service,
                    kind: kept.source.kind(),
                    fetched: kept.held.is_some(),
                    expires: kept.held.as_ref().and_then(|held| held.expires),
                    failures: kept.all_failures,
                    problem: kept.problem.clone(),
                });
            }
        }
        all.sort_by(|a, b| (&a.service, a.kind).cmp(&(&b.service, b.kind)));
        all
    }

    /// Fetches and renews until dropped. `random` gives numbers from 0 to 1, so that many processors do not ask all at once.
    pub async fn run<F: Fetch>(
        self,
        fetch: F,
        clock: Clock,
        random: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let tender = Arc::new(Tender { keeper: self.clone(), fetch, clock, random: Box::new(random) });
        let mut tasks = JoinSet::new();
        loop {
            for id in self.untended() {
                let tender = Arc::clone(&tender);
                tasks.spawn(async move { tender.tend(id).await });
            }
            tokio::select! {
                () = self.0.adopted.notified() => {}
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    fn untended(&self) -> Vec<SourceId> {
        let mut kept = self.kept();
        let untended = kept.iter_mut().filter(|(_, kept)| !kept.tended);
        untended
            .map(|(id, kept)| {
                kept.tended = true;
                *id
            })
            .collect()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<SourceId, Kept>> {
        // Each change is complete before anything can panic.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Each once.
    fn services(&self) -> BTreeSet<Arc<str>> {
        let alive = self.cells.iter().filter(|(_, cell)| cell.strong_count() > 0);
        alive.map(|(service, _)| Arc::clone(service)).collect()
    }
}

/// Keeps credentials fresh until dropped, by what the environment, the clock and the providers say.
pub async fn keep(keeper: Keeper) {
    let clock: Clock = Arc::new(SystemTime::now);
    let providers = Providers::new(|name| std::env::var(name).ok(), Arc::clone(&clock));
    keeper.run(providers, clock, random).await;
}

/// From 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    match ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes) {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

struct Tender<F> {
    keeper: Keeper,
    fetch: F,
    clock: Clock,
    random: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl<F: Fetch> Tender<F> {
    /// Keeps one credential until nobody needs it.
    async fn tend(&self, id: SourceId) {
        while let Some(source) = self.needed(id) {
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch.fetch(&source)).await;
            let late = || FetchError(format!("nothing came within {} s", FETCH_TIMEOUT.as_secs()));
            let mut wait = self.note(id, fetched.unwrap_or_else(|_| Err(late())));
            self.keeper.0.fetched.send_modify(|count| *count += 1);
            while !wait.is_zero() {
                let part = wait.min(LOOK);
                tokio::time::sleep(part).await;
                wait -= part;
                if self.needed(id).is_none() {
                    return;
                }
            }
        }
    }

    /// The source, if anybody needs it; else it is forgotten.
    fn needed(&self, id: SourceId) -> Option<Source> {
        let mut kept = self.keeper.kept();
        let entry = kept.get_mut(&id)?;
        entry.cells.retain(|(_, cell)| cell.strong_count() > 0);
        if entry.cells.is_empty() {
            kept.remove(&id);
            return None;
        }
        Some(entry.source.clone())
    }

    /// Puts what was fetched into force, and says when to fetch again.
    fn note(&self, id: SourceId, fetched: Result<Held, FetchError>) -> Duration {
        let now = (self.clock)();
        let fetched = fetched.and_then(|held| match held.expires {
            Some(expires) if expires <= now => Err(FetchError("what came has expired already".to_owned())),
            _ => Ok(held),
        });
        let mut kept = self.keeper.kept();
        let Some(kept) = kept.get_mut(&id) else { return Duration::ZERO };
        let services: Vec<_> = kept.services().into_iter().collect();
        let services = services.join(", ");
        let kind = kept.source.kind();
        match fetched {
            Ok(held) => {
                let held = Arc::new(held);
                for cell in kept.cells.iter().filter_map(|(_, cell)| cell.upgrade()) {
                    cell.fill(Arc::clone(&held));
                }
                if kept.problem.is_some() {
                    tracing::info!(%services, kind, "the credential could be fetched again");
                }
                let again = renewal(held.expires, now, (self.random)());
                kept.held = Some(held);
                kept.failures = 0;
                kept.problem = None;
                again
            }
            Err(problem) => {
                kept.failures = kept.failures.saturating_add(1);
                kept.all_failures += 1;
                let left = kept.held.as_ref().map(|held| match held.expires {
                    Some(expires) => expires.duration_since(now).unwrap_or_default().as_secs(),
                    None => u64::MAX,
                });
                match left {
                    Some(0) | None => {
                        tracing::error!(%services, kind, %problem, "there is no valid credential: requests to these services are refused")
                    }
                    Some(left) => {
                        tracing::warn!(%services, kind, %problem, seconds_left = left, "the credential could not be renewed; the old one serves until it expires")
                    }
                }
                kept.problem = Some(problem);
                backoff(kept.failures, (self.random)())
            }
        }
    }
}

/// When to renew what has just come: after four fifths of its life, a little earlier by chance.
fn renewal(expires: Option<SystemTime>, now: SystemTime, random: f64) -> Duration {
    let Some(expires) = expires else { return REREAD };
    let life = expires.duration_since(now).unwrap_or_default();
    life.mul_f64(0.8 - 0.1 * random.clamp(0.0, 1.0)).max(Duration::from_secs(1))
}

/// Twice as long after each failure, half of it by chance.
fn backoff(failures: u32, random: f64) -> Duration {
    let full = Duration::from_secs(1 << failures.min(6)).min(MAX_BACKOFF);
    full.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

/// The text of the first XML element of that name; the elements that are read hold neither markup nor entities.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.trim())
}

fn rfc3339(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text.trim(), &Rfc3339).ok().map(Into::into)
}

/// A file of at most 64 KiB.
async fn read(path: &Path) -> Result<SecretString, FetchError> {
    use tokio::io::AsyncReadExt as _;
    let wrong = |error: std::io::Error| FetchError(format!("{}: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(wrong)?;
    let mut text = String::new();
    file.take(64 << 10).read_to_string(&mut text).await.map_err(wrong)?;
    Ok(text.into())
}
