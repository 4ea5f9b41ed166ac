//! How the stream from the controller is, for people and probes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a processor without a controller has, too: nothing to tell.
#[derive(Debug, Clone, Default)]
pub struct Pushed(Arc<Mutex<Option<PushedStatus>>>);

/// How it is now.
#[derive(Debug, Clone)]
pub struct PushedStatus {
    /// Whether the controller is there.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Instant,
    /// Why it is not.
    pub problem: Option<String>,
    /// Every Gateway that is served or was to be, by name.
    pub gateways: Vec<GatewayStatus>,
}

/// What a Gateway is served by.
#[derive(Debug, Clone)]
pub struct GatewayStatus {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// The generation in force, and since when; nothing if there is none.
    pub in_force: Option<(u64, Instant)>,
    /// Whether that is what was kept on disk, and no controller has confirmed it.
    pub cached: bool,
    /// Items of it that are not served.
    pub problems: usize,
    /// A later generation that could not be used, and why.
    pub refused: Option<(u64, String)>,
}

impl Pushed {
    /// How it is; nothing if the configuration does not come from a controller.
    pub fn status(&self) -> Option<PushedStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, status: PushedStatus) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }
}

impl PushedStatus {
    /// A line for the controller, and one for each Gateway that is not as it should be.
    pub fn lines(&self, now: Instant) -> Vec<String> {
        let age = |since: Instant| now.saturating_duration_since(since).as_secs();
        let mut lines = vec![match (self.connected, &self.problem) {
            (true, _) => format!("the controller is connected since {} s", age(self.since)),
            (false, None) => "the controller is not connected yet".to_owned(),
            (false, Some(problem)) => {
                format!(
                    "the controller is away since {} s, what is in force stays: {problem}",
                    age(self.since)
                )
            }
        }];
        for gateway in &self.gateways {
            let name = &gateway.name;
            if let Some((generation, problem)) = &gateway.refused {
                lines.push(format!("generation {generation} of {name} is not in force: {problem}"));
            }
            if gateway.cached {
                lines.push(format!("{name} is served as it was kept on disk"));
            }
        }
        lines
    }
}
