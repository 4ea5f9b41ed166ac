//! Threads that write files, so that nobody else waits for a disk.

use std::io;
use std::thread::{Builder, JoinHandle};

/// A thread that is waited for when this is dropped. It has to end by itself then: what it takes its work from is dropped before, as a field
/// that stands above this one.
#[derive(Debug)]
pub(super) struct Worker(Option<JoinHandle<()>>);

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// Where the system has no room for another thread.
    pub(super) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Ok(Self(Some(Builder::new().name(name.to_owned()).spawn(work)?)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic in there was reported when it happened.
            let _ = thread.join();
        }
    }
}
