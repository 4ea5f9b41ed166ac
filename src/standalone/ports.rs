//! Finds out before anything is started whether the ports are free.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

/// A port that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody else listens there.
    #[error("port {port} for {purpose} is taken; use {option}")]
    Taken {
        /// The port.
        port: u16,
        /// What it is for.
        purpose: String,
        /// The option that chooses another.
        option: String,
    },
    /// The system does not allow it.
    #[error(
        "{address} for {purpose} cannot be listened on: {error}; {option} chooses another port, --listen-address another address"
    )]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What it is for.
        purpose: String,
        /// The option that chooses another.
        option: String,
        /// What the system says.
        error: std::io::Error,
    },
}

/// Tries to listen on a port, and lets it go again. Port 0 is always free.
pub(super) fn check(address: IpAddr, port: u16, purpose: &str, option: &str) -> Result<(), PortError> {
    if port == 0 {
        return Ok(());
    }
    let address = SocketAddr::new(address, port);
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Err(PortError::Taken { port, purpose: purpose.to_owned(), option: option.to_owned() })
        }
        Err(error) => {
            Err(PortError::Refused { address, purpose: purpose.to_owned(), option: option.to_owned(), error })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_taken_port_names_the_option() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = holder.local_addr().expect("its address").port();
        let check = || check(Ipv4Addr::LOCALHOST.into(), port, "listener \"http\"", "--listen http=PORT");
        assert_eq!(
            check().expect_err("taken").to_string(),
            format!("port {port} for listener \"http\" is taken; use --listen http=PORT")
        );
        drop(holder);
        check().expect("free again");
    }
}
