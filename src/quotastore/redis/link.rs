//! The one connection to the server that keeps the buckets, wherever that has gone.
//!
//! All keys are in one slot, so one server at a time has them: the one that is named, the one that Sentinels call the master, or
//! the one that keeps the slot. It is looked for ([`find`](super::find)) whenever the connection in use is lost, is that of a server that
//! does not take writes any more, or does not answer a question that is asked every second; a server that was stopped and
//! replaced is found out that way although no connection breaks.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::super::StoreError;
use super::call::Call;
use super::find::Finder;
use super::place::{Host, RedisOptions, RedisPlace};
use crate::keystore::redis_reason;

/// How often the server is asked whether it is there, and how long its answer may take.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Every so many times a cluster is asked for its nodes.
const LEARN_EVERY: u32 = 16;
/// The first and the longest wait before connecting is tried again.
const BACKOFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// The first and the longest wait before a step is tried again that the server could not do just now, and how long it is tried.
const AGAIN: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(100)];
const PATIENCE: Duration = Duration::from_secs(3);
/// How many steps wait for replicas together, and for how long at most, in milliseconds.
const GROUP: usize = 256;
const REPLICATED_WITHIN: u64 = 200;

/// The connection, and who looks after it.
pub(super) struct Link {
    /// For messages.
    pub(super) name: String,
    finder: Finder,
    replicas: u32,
    /// The connection in use. Who finds it broken takes it away, and [`Link::keep`] puts another in its place.
    current: watch::Sender<Option<Connected>>,
    /// Of a cluster: who gets the slot that is being moved.
    next: Mutex<Option<(Host, MultiplexedConnection)>>,
}

/// A connection in use.
#[derive(Clone)]
pub(super) struct Connected {
    number: u64,
    pub(super) connection: MultiplexedConnection,
    /// Where writes that have to be replicated are left.
    group: Option<mpsc::Sender<Write>>,
}

/// A connection beside the one that all share, to the same server, for the thread that opened it.
pub(super) struct Own(Option<Mutex<Option<Connected>>>);

/// Why a call was not answered.
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// The server would not do it, as opposed to one that is away or not in charge.
    pub(super) refused: bool,
    next: Next,
}

/// How long a call is tried.
pub(super) struct Patience {
    pause: Duration,
    since: Option<Instant>,
}

/// A command, and where its answer goes.
type Write = (Cmd, oneshot::Sender<RedisResult<Value>>);

/// What is to be done about an error.
enum Next {
    GiveUp,
    Again,
    After,
    Ask(Host),
}

impl Link {
    pub(super) fn new(place: RedisPlace, options: &RedisOptions, key: String) -> Result<Self, String> {
        let name = place.to_string();
        let finder = Finder::new(place, options.clone(), key)?;
        let (current, replicas) = (watch::Sender::new(None), options.replicas);
        Ok(Self { name, finder, replicas, current, next: Mutex::default() })
    }

    /// Connects, and again whenever the connection is lost, until dropped.
    pub(super) async fn keep(&self) {
        let mut changes = self.current.subscribe();
        let [first, longest] = BACKOFF;
        let (mut number, mut wait, mut away) = (0, first, false);
        loop {
            match self.finder.find().await {
                Ok(connection) => {
                    number += 1;
                    tracing::info!(store = self.name, "the store of quotas answers");
                    let since = Instant::now();
                    let (sender, writes) = mpsc::channel(GROUP);
                    let group = (self.replicas > 0).then_some(sender);
                    let connected = Connected { number, connection, group };
                    self.current.send_replace(Some(connected.clone()));
                    let lost = async { drop(changes.wait_for(Option::is_none).await) };
                    tokio::select! {
                        () = lost => {}
                        () = self.watch(&connected) => {}
                        () = self.replicate(connected.connection.clone(), writes) => {}
                    }
                    self.lose(&connected);
                    away = false;
                    // One that is lost at once is not looked for again at once.
                    wait = if since.elapsed() < LOOK_EVERY { (wait * 2).min(longest) } else { first };
                    if wait > first {
                        sleep(wait / 4).await;
                    }
                }
                Err(reason) => {
                    if !away {
                        tracing::error!(store = self.name, error = reason, "the store of quotas is away");
                    }
                    away = true;
                    sleep(wait).await;
                    wait = (wait * 2).min(longest);
                }
            }
        }
    }

    /// Returns when the server does not answer, or another has taken its place.
    async fn watch(&self, connected: &Connected) {
        let mut ticks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0;
        loop {
            if count % LEARN_EVERY == 0 {
                self.finder.learn(connected.connection.clone()).await;
            }
            count += 1;
            ticks.tick().await;
            let mut connection = connected.connection.clone();
            let time = cmd("TIME");
            match timeout(LOOK_EVERY, time.query_async::<(u64, u64)>(&mut connection)).await {
                Ok(Ok(_)) => {}
                // It may be busy, or may not let us ask; those who need more are told.
                Ok(Err(error)) if error.code().is_some() => {}
                _ => {
                    tracing::warn!(store = self.name, "the store of quotas does not answer; connecting anew");
                    return;
                }
            }
            if self.finder.moved().await {
                tracing::warn!(store = self.name, "another server has become the master; connecting to it");
                return;
            }
        }
    }

    /// Sends what is left to be written, many at once, and answers when enough replicas have it. Without such writes never returns.
    async fn replicate(&self, mut connection: MultiplexedConnection, mut writes: mpsc::Receiver<Write>) {
        let mut batch = Vec::with_capacity(GROUP);
        loop {
            if writes.recv_many(&mut batch, GROUP).await == 0 {
                return std::future::pending().await;
            }
            let mut all = Pipeline::with_capacity(batch.len() + 1);
            all.ignore_errors();
            for (command, _) in &batch {
                all.add_command(command.clone());
            }
            all.cmd("WAIT").arg(self.replicas).arg(REPLICATED_WITHIN);
            let answers = all.query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
            let (mut answers, lost) = match answers {
                Ok(answers) => (answers, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            let enough = answers.pop().unwrap_or(Ok(Value::Nil)).and_then(|count| self.enough(count));
            let mut answers = answers.into_iter();
            for (_, answer) in batch.drain(..) {
                let result = match (&lost, answers.next()) {
                    (Some(error), _) => Err(error.clone()),
                    (None, Some(Ok(value))) => enough.clone().map(|()| value),
                    (None, Some(error)) => error,
                    (None, None) => Err(strange()),
                };
                // Who does not wait any more does not need it.
                drop(answer.send(result));
            }
        }
    }

    fn enough(&self, count: Value) -> RedisResult<()> {
        match count {
            Value::Int(count) if count >= i64::from(self.replicas) => Ok(()),
            Value::Int(count) => Err(RedisError::from((
                ErrorKind::UnexpectedReturnType,
                "too few replicas have it in time",
                format!("{count} of {}", self.replicas),
            ))),
            _ => Err(strange()),
        }
    }

    /// Does one call, once, on the server that is in charge.
    pub(super) async fn attempt(&self, connected: &Connected, call: &Call<'_>) -> Result<Value, Failure> {
        let error = match self.send(connected, call).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let mut next = self.after(connected, &error);
        let refused = match error.kind() {
            ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain) => true,
            _ => matches!(next, Next::GiveUp) && error.code().is_some(),
        };
        if let Next::Ask(host) = next {
            if call.may_follow()
                && let Ok(value) = self.send_to(&host, call).await
            {
                return Ok(value);
            }
            next = Next::After;
        }
        Err(Failure { error: self.away(&error), refused, next })
    }

    /// By its digest; whole, where the server does not know it.
    async fn send(&self, connected: &Connected, call: &Call<'_>) -> RedisResult<Value> {
        match Self::write(connected, call.short()).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                Self::write(connected, call.whole()).await
            }
            answer => answer,
        }
    }

    async fn write(connected: &Connected, command: Cmd) -> RedisResult<Value> {
        let Some(group) = &connected.group else {
            return command.query_async(&mut connected.connection.clone()).await;
        };
        let (answer, answered) = oneshot::channel();
        if group.send((command, answer)).await.is_ok()
            && let Ok(answer) = answered.await
        {
            return answer;
        }
        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        Err(RedisError::from(lost))
    }

    /// Asks the server that is getting the slot, as the one that has it said.
    async fn send_to(&self, host: &Host, call: &Call<'_>) -> RedisResult<Value> {
        let known = self.next.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = match known {
            Some((known, connection)) if known == *host => connection,
            _ => {
                let opened = self.finder.open(host).await?;
                let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
                next.insert((host.clone(), opened)).1.clone()
            }
        };
        let mut answer = self.asking(&mut connection, call.short()).await;
        if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)) {
            answer = self.asking(&mut connection, call.whole()).await;
        }
        if answer.as_ref().is_err_and(|error| error.code().is_none()) {
            *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        answer
    }

    async fn asking(&self, connection: &mut MultiplexedConnection, command: Cmd) -> RedisResult<Value> {
        let mut all = Pipeline::new();
        all.ignore_errors().cmd("ASKING").add_command(command);
        if self.replicas > 0 {
            all.cmd("WAIT").arg(self.replicas).arg(REPLICATED_WITHIN);
        }
        let answers: Vec<RedisResult<Value>> = all.query_async(connection).await?;
        let mut answers = answers.into_iter().skip(1);
        let answer = answers.next().unwrap_or_else(|| Err(strange()))?;
        if self.replicas > 0 {
            self.enough(answers.next().unwrap_or(Ok(Value::Nil))?)?;
        }
        Ok(answer)
    }

    /// Lets go of a connection that is of no use any more, and says whether trying again may help.
    fn after(&self, connected: &Connected, error: &RedisError) -> Next {
        let host = || error.redirect_node().and_then(|(address, _)| Host::read(address, None));
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => {
                self.finder.hint(host());
                self.lose(connected);
                Next::Again
            }
            ErrorKind::Server(ServerErrorKind::Ask) => match self.finder.beside(host()) {
                Some(host) => Next::Ask(host),
                None => Next::After,
            },
            ErrorKind::Server(ServerErrorKind::TryAgain) => Next::After,
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading,
            ) => {
                self.lose(connected);
                Next::After
            }
            // What was asked may have been done: every step may be asked for twice.
            _ if error.is_timeout() => {
                self.lose(connected);
                Next::GiveUp
            }
            _ if error.is_io_error() || error.is_connection_dropped() => {
                self.lose(connected);
                Next::Again
            }
            _ => Next::GiveUp,
        }
    }

    /// Sends commands that need not succeed.
    pub(super) async fn leave(&self, all: &Pipeline) -> Result<(), StoreError> {
        let mut connected = self.connected().await;
        all.query_async::<()>(&mut connected.connection).await.map_err(|error| {
            self.after(&connected, &error);
            self.away(&error)
        })
    }

    /// The connection, once there is one.
    pub(super) async fn connected(&self) -> Connected {
        let mut connections = self.current.subscribe();
        loop {
            // The sender is in `self`, so it does not fail.
            if let Ok(connected) = connections.wait_for(Option::is_some).await
                && let Some(connected) = &*connected
            {
                return connected.clone();
            }
        }
    }

    fn lose(&self, connected: &Connected) {
        self.current.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|current| current.number == connected.number);
            if same {
                *current = None;
            }
            same
        });
    }

    pub(super) fn away(&self, error: &RedisError) -> StoreError {
        StoreError::Away(format!("{}: {}", self.name, redis_reason(error)))
    }
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { pause: AGAIN[0], since: None }
    }

    /// Waits as long as it should before the call is tried once more; `false` if it should not.
    pub(super) async fn again(&mut self, failure: &Failure) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        if matches!(failure.next, Next::GiveUp) || since.elapsed() > PATIENCE {
            return false;
        }
        if matches!(failure.next, Next::After) {
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(AGAIN[1]);
        }
        true
    }
}

impl Own {
    /// No connection but the shared one.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// One of its own, once it is open.
    pub(super) fn wanted() -> Self {
        Self(Some(Mutex::default()))
    }

    /// The one to be used where that is the shared one.
    pub(super) fn or(&self, shared: Connected) -> Connected {
        let Some(own) = &self.0 else { return shared };
        let own = own.lock().unwrap_or_else(PoisonError::into_inner);
        own.as_ref().filter(|own| own.number == shared.number).cloned().unwrap_or(shared)
    }

    /// Opens one whenever there is another shared one, until dropped. While there is none, or it cannot be opened, the shared one does.
    pub(super) async fn follow(&self, link: &Link) {
        let Some(own) = &self.0 else { return };
        let mut changes = link.current.subscribe();
        loop {
            let shared = changes.borrow_and_update().clone();
            // Those that replicas have to have go together.
            if let Some(shared) = shared.filter(|shared| shared.group.is_none()) {
                match link.finder.again().await {
                    Ok(connection) => {
                        let connected = Connected { connection, ..shared };
                        *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(connected);
                    }
                    Err(reason) => {
                        tracing::debug!(
                            store = link.name,
                            reason,
                            "no second connection to the store of quotas"
                        );
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

fn strange() -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, "the answer makes no sense"))
}
