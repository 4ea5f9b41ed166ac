//! L1. Quotas: what an exchange may spend, decided without I/O.
//!
//! ```text
//! limits ─► Ask (claims on buckets) ─► a store: one atomic step ─► Verdict ─► the request goes on, or a 429
//!                                                                     └► at the end, of any kind: Settle, once
//! ```
//!
//! A request claims its *bound* (the most it may cost) from every bucket that a limit names for it. The store holds the bound
//! until the exchange is settled with what it did cost. So what is spent and what is held never exceed a limit together.
//!
//! All times are milliseconds since the Unix epoch by the store's clock; all amounts are integers of the limit's own unit (tokens,
//! requests, millionths of the currency).

pub mod cap;
mod claim;
mod describe;
pub mod estimate;
pub mod headers;
pub mod ledger;
mod limit;
mod metric;
mod quotas;
pub mod refusal;
mod scope;
mod window;

pub use self::claim::{
    Ask, Bound, BucketKey, Claim, Grant, Group, Mode, OnExpiry, OutputCap, PerOutput, Reading, Refusal,
    ReservationId, Settle, Settled, Verdict, Window,
};
pub use self::limit::{DEFAULT_OUTPUT, End, EstimateBy, Limit, OnAway, OnError, Terms, Used};
pub use self::metric::{Class, Counted, MAX_PRICE, Metric, Price, Prices};
pub use self::quotas::{Estimate, LEASE, Prepared, Quotas, Selected, Stage};
pub use self::scope::{Dimension, Facts, Selector, Target, Tenants, Test, What};
pub use self::window::{MAX_LENGTH, MIN_LENGTH, Unit, UnknownZone, WindowRule, Zone};

/// The largest amount there is, 2^53 - 1: exact in every number that a store computes with.
pub const MAX_AMOUNT: u64 = crate::usage::MAX_COUNT;
