//! The lease at the API server.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Candidate, Record, Standing, Step, Timing};

/// Follows whether this controller leads.
#[derive(Debug, Clone)]
pub(in super::super) struct Leadership(watch::Receiver<Standing>);

impl Leadership {
    /// Always: there is no other.
    pub(in super::super) fn always() -> Self {
        let forever = Instant::now() + Duration::from_secs(u64::from(u32::MAX));
        Self(watch::Sender::new(Standing::Leads(forever)).subscribe())
    }

    /// For how long it leads for certain, if it does.
    pub(in super::super) fn remaining(&self) -> Option<Duration> {
        match *self.0.borrow() {
            Standing::Leads(until) => {
                until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            }
            Standing::Unknown | Standing::Follows => None,
        }
    }

    /// Whether somebody else is known to lead.
    pub(in super::super) fn follows(&self) -> bool {
        *self.0.borrow() == Standing::Follows
    }

    /// Resolves when it may have begun or ended; never again after the election has ended.
    pub(in super::super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Stands for election until `stop`, then gives the lease back.
pub(in super::super) fn elect(
    leases: Api<Lease>,
    name: String,
    (identity, timing): (String, Timing),
    stop: CancellationToken,
) -> (Leadership, impl Future<Output = ()>) {
    let (sender, receiver) = watch::channel(Standing::Unknown);
    let mut election =
        Election { candidate: Candidate::new(identity.clone(), timing), leases, name, identity, timing };
    let running = async move {
        loop {
            let found = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                found = election.round() => found,
            };
            if let Err(problem) = found {
                tracing::warn!(lease = election.name, problem, "the lease cannot be kept");
            }
            let standing = election.candidate.standing(Instant::now());
            // That it goes on leading is no news.
            let news = sender.send_if_modified(|before| {
                let news = std::mem::discriminant(before) != std::mem::discriminant(&standing);
                *before = standing;
                news
            });
            if news {
                match standing {
                    Standing::Leads(_) => {
                        tracing::info!(identity = election.identity, "this controller leads")
                    }
                    Standing::Follows => {
                        tracing::info!(identity = election.identity, "another controller leads")
                    }
                    Standing::Unknown => tracing::warn!("this controller does not lead any longer"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(jittered(timing.retry)) => {}
            }
        }
        let led = matches!(sender.send_replace(Standing::Unknown), Standing::Leads(_));
        if led {
            election.release().await;
        }
    };
    (Leadership(receiver), running)
}

struct Election {
    candidate: Candidate,
    leases: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

impl Election {
    /// Looks once, and writes if there is something to write.
    async fn round(&mut self) -> Result<(), String> {
        let patience = self.timing.deadline.saturating_sub(self.timing.retry).max(self.timing.retry) / 2;
        let read = tokio::time::timeout(patience, self.leases.get_opt(&self.name)).await;
        let lease = read.map_err(|_| "the API server does not answer")?.map_err(|error| error.to_string())?;
        let record = lease.as_ref().map(record);
        let begun = Instant::now();
        let step = self.candidate.look(record.as_ref(), begun);
        if step == Step::Stand {
            return Ok(());
        }
        let wanted = self.wanted(lease.as_ref(), step);
        let parameters = PostParams::default();
        let write = async {
            match step {
                Step::Create => self.leases.create(&parameters, &wanted).await,
                _ => self.leases.replace(&self.name, &parameters, &wanted).await,
            }
        };
        match tokio::time::timeout(patience, write).await {
            Ok(Ok(written)) => {
                self.candidate.written(written.metadata.resource_version.unwrap_or_default(), begun);
                Ok(())
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                self.candidate.beaten();
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server does not answer".to_owned()),
        }
    }

    fn wanted(&self, lease: Option<&Lease>, step: Step) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let renewed = step == Step::Renew;
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.timing.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: before.acquire_time.filter(|_| renewed).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(
                before.lease_transitions.unwrap_or_default().saturating_add(i32::from(step == Step::Take)),
            ),
            ..before
        };
        let mut metadata = lease
            .map(|lease| lease.metadata.clone())
            .unwrap_or_else(|| ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() });
        metadata.managed_fields = None;
        Lease { metadata, spec: Some(spec) }
    }

    /// Lets the next one lead at once.
    async fn release(&self) {
        let give = async {
            let Ok(Some(mut lease)) = self.leases.get_opt(&self.name).await else { return };
            let Some(spec) = lease.spec.as_mut() else { return };
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                (spec.holder_identity, spec.lease_duration_seconds) = (Some(String::new()), Some(1));
                let released = self.leases.replace(&self.name, &PostParams::default(), &lease).await;
                tracing::info!(done = released.is_ok(), "gave the lease back");
            }
        };
        let _ = tokio::time::timeout(self.timing.retry, give).await;
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Record {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
    }
}

/// Up to a fifth longer, so that candidates do not march in step.
fn jittered(pause: Duration) -> Duration {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
    pause + pause.mul_f64(f64::from(u8::try_from(random % 200).unwrap_or_default()) / 1000.0)
}
