//! L4. Listeners and what is served on them.

pub mod listen;
