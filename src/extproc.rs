//! L4. The external processor: Envoy's gRPC service on one side, [`crate::exchange`] on the other.
//!
//! One gRPC stream is one exchange, or one attempt of an exchange whose backends differ. The reply stream is built on the inbound one: no task and no queue per stream, so
//! dropping the stream drops the exchange, and the guard around it settles it.

mod decode;
mod encode;
mod log;
mod registry;
mod rpc;
mod service;
mod settle;

pub use service::Service;
pub use settle::{ActiveExchanges, Settler, settler};
