//! L0. Codecs that are pushed bytes and yield frames. Each can be cut at any byte: how the input is split into chunks
//! never changes what comes out. Besides, how documents of Go programs are read.

pub mod any_case;
pub mod encoding;
pub mod eventstream;
pub mod json;
pub mod multipart;
pub mod sse;
