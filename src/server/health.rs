//! `grpc.health.v1`: whether this processor wants work.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::Habits;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::health_server;
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};

/// What the Go processor calls itself.
const GO_SERVICE: &str = "extproc";

/// The services whose health can be asked for; the empty name is the whole server.
const SERVICES: [&str; 3] = ["", "envoy.service.ext_proc.v3.ExternalProcessor", GO_SERVICE];

/// Answered with yes by everything that can answer: to start a processor anew helps against neither a missing configuration nor a drain.
/// For probes, which only check; it is not listed.
const LIVENESS: &str = "liveness";

/// Shared knowledge of whether the processor serves: not before it has a configuration, and not once it drains.
#[derive(Debug, Clone)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
    habits: Habits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unconfigured,
    Serving,
    Draining,
}

impl State {
    fn status(self) -> ServingStatus {
        match self {
            Self::Serving => ServingStatus::Serving,
            Self::Unconfigured | Self::Draining => ServingStatus::NotServing,
        }
    }
}

impl Health {
    /// `configured`: there is a configuration already.
    pub fn new(configured: bool, habits: Habits) -> Self {
        let state = if configured { State::Serving } else { State::Unconfigured };
        Self { state: Arc::new(watch::Sender::new(state)), habits }
    }

    /// There is a configuration now.
    pub fn configured(&self) {
        self.state.send_if_modified(|state| {
            let first = *state == State::Unconfigured;
            if first {
                *state = State::Serving;
            }
            first
        });
    }

    /// No more work is wanted, for good.
    pub fn drain(&self) {
        self.state.send_replace(State::Draining);
    }

    /// Why work is not wanted; nothing when it is.
    pub fn problem(&self) -> Option<&'static str> {
        match self.told() {
            State::Serving => None,
            State::Unconfigured => Some("no configuration was loaded yet"),
            State::Draining => Some("draining"),
        }
    }

    fn response(&self) -> HealthCheckResponse {
        HealthCheckResponse { status: self.told().status().into() }
    }

    fn told(&self) -> State {
        match self.habits {
            Habits::Own => *self.state.borrow(),
            Habits::Go => State::Serving,
        }
    }

    fn knows(&self, service: &str) -> bool {
        self.habits == Habits::Go || SERVICES.contains(&service)
    }
}

type Changes = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Changes;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if service == LIVENESS {
            return Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }));
        }
        if !self.knows(&service) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(self.response()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let services = match self.habits {
            Habits::Own => &SERVICES[..],
            Habits::Go => &[GO_SERVICE],
        };
        let statuses: HashMap<_, _> =
            services.iter().map(|service| ((*service).to_owned(), self.response())).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Changes>, Status> {
        if self.habits == Habits::Go {
            return Err(Status::unimplemented("health cannot be watched here; ask again with Check"));
        }
        if !self.knows(&request.get_ref().service) {
            // The protocol wants the stream to stay open: the service might appear. Ours never will.
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            let forever = futures_util::StreamExt::chain(stream::iter([Ok(unknown)]), stream::pending());
            return Ok(Response::new(Box::pin(forever)));
        }
        let mut states = self.state.subscribe();
        states.mark_changed();
        let changes = stream::unfold((states, None), |(mut states, told)| async move {
            loop {
                states.changed().await.ok()?;
                let status = states.borrow_and_update().status();
                if told != Some(status) {
                    let response = HealthCheckResponse { status: status.into() };
                    return Some((Ok(response), (states, Some(status))));
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::health_server::Health as _;
    use super::*;

    #[tokio::test]
    async fn it_lives_whether_it_serves_or_not() {
        let health = Health::new(false, Habits::Own);
        let check = async |service: &str| {
            let request = Request::new(HealthCheckRequest { service: service.to_owned() });
            health.check(request).await.unwrap().into_inner().status()
        };
        assert_eq!(
            (check("").await, check("liveness").await),
            (ServingStatus::NotServing, ServingStatus::Serving)
        );
        health.configured();
        assert_eq!(check("").await, ServingStatus::Serving);
        health.drain();
        assert_eq!(
            (check("").await, check("liveness").await),
            (ServingStatus::NotServing, ServingStatus::Serving)
        );
    }

    #[tokio::test]
    async fn the_go_processor_serves_whatever_happens() {
        let health = Health::new(false, Habits::Go);
        health.drain();
        assert_eq!(health.problem(), None);
        for service in ["", "extproc", "anything"] {
            let request = Request::new(HealthCheckRequest { service: service.to_owned() });
            let status = health.check(request).await.unwrap().into_inner().status();
            assert_eq!(status, ServingStatus::Serving, "{service}");
        }
        let listed = health.list(Request::new(HealthListRequest {})).await.unwrap().into_inner().statuses;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed["extproc"].status(), ServingStatus::Serving);
        let watched = health.watch(Request::new(HealthCheckRequest::default())).await;
        assert_eq!(watched.err().unwrap().code(), Code::Unimplemented);
    }
}
