//! Files to sources.
