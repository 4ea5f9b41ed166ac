//! What a cluster is told.
