//! `grpc.health.v1`: whether this processor wants work.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::health_server;
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};

/// The services whose health can be asked for; the empty name is the whole server. `extproc` is what the Go processor calls
/// itself.
const SERVICES: [&str; 3] = ["", "envoy.service.ext_proc.v3.ExternalProcessor", "extproc"];

/// Shared knowledge of whether the processor serves: not before it has a configuration, and not once it drains.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<State>>);

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
    pub fn new(configured: bool) -> Self {
        let state = if configured { State::Serving } else { State::Unconfigured };
        Self(Arc::new(watch::Sender::new(state)))
    }

    /// There is a configuration now.
    pub fn configured(&self) {
        self.0.send_if_modified(|state| {
            let first = *state == State::Unconfigured;
            if first {
                *state = State::Serving;
            }
            first
        });
    }

    /// No more work is wanted, for good.
    pub fn drain(&self) {
        self.0.send_replace(State::Draining);
    }

    /// Why work is not wanted; nothing when it is.
    pub fn problem(&self) -> Option<&'static str> {
        match *self.0.borrow() {
            State::Serving => None,
            State::Unconfigured => Some("no configuration was loaded yet"),
            State::Draining => Some("draining"),
        }
    }

    fn response(&self) -> HealthCheckResponse {
        HealthCheckResponse { status: self.0.borrow().status().into() }
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
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(self.response()))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses: HashMap<_, _> =
            SERVICES.iter().map(|service| ((*service).to_owned(), self.response())).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Changes>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            // The protocol wants the stream to stay open: the service might appear. Ours never will.
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            let forever = futures_util::StreamExt::chain(stream::iter([Ok(unknown)]), stream::pending());
            return Ok(Response::new(Box::pin(forever)));
        }
        let mut states = self.0.subscribe();
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
