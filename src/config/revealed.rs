//! The document with its secrets, for the processors that serve by it and for nobody else.

use std::fmt;
use std::io::{self, Write};

use secrecy::{ExposeSecret, SecretSlice};

use super::Config;
use super::shown::{Document, Secrets};

/// A document with its secrets, in memory that is overwritten when it is given up. Its debug form shows its length only.
#[derive(Clone)]
pub struct Revealed(SecretSlice<u8>);

impl Revealed {
    /// JSON that [`crate::source`] reads back as the same configuration.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Revealed").field(&self.bytes().len()).finish()
    }
}

impl Config {
    /// The document with its secrets. Where it goes has to be kept as they are.
    #[must_use]
    pub fn reveal(&self) -> Revealed {
        let document = Document(self, Secrets::Shown);
        // Room for all of it before anything is written: a buffer that grows leaves copies behind.
        let mut length = Length(0);
        // Serialising plain data of ours to memory fails for no input.
        let _ = serde_json::to_writer(&mut length, &document);
        let mut bytes = Vec::with_capacity(length.0);
        let _ = serde_json::to_writer(&mut bytes, &document);
        Revealed(bytes.into())
    }
}

/// Counts what is written, and keeps none of it.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
