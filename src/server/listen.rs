//! Where a server listens: a TCP address or a Unix domain socket, behind one type.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// An address to listen on. Text forms: `:8080` (all interfaces), `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`,
/// `unix:///path/to/socket`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

impl Listen {
    /// The TCP address, if it is one.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }

    /// Opens the listener. The address is named in the error.
    ///
    /// A socket file left behind by an earlier process is replaced; a file of any other kind is not touched. Every
    /// member of the owner's group may connect to a Unix socket (mode 0775), as Envoy often runs under another user.
    ///
    /// # Errors
    /// The operating system's reason, with the address.
    pub fn bind(&self) -> io::Result<Listener> {
        self.try_bind().map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {self}: {e}")))
    }

    fn try_bind(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(addr) => {
                let listener = bind_tcp(*addr)?;
                let listen = Self::Tcp(listener.local_addr()?);
                Ok(Listener { listen, inner: Inner::Tcp(listener) })
            }
            Self::Unix(path) => {
                remove_socket(path)?;
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o775))?;
                Ok(Listener { listen: self.clone(), inner: Inner::Unix(listener) })
            }
        }
    }
}

/// Binds on `[::]`, which serves IPv4 too, where the host has IPv6, and on `0.0.0.0` where it has not.
fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let bind = |addr: SocketAddr| {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(4096)
    };
    match bind(addr) {
        Err(e) if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && e.kind() != io::ErrorKind::AddrInUse => {
            bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port()))
        }
        result => result,
    }
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Why a text is not an address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address to listen on; write `:8080`, `127.0.0.1:8080`, `[::1]:8080` or `unix:///path/to/socket`"
)]
pub struct InvalidListen(String);

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        let invalid = || InvalidListen(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.is_empty() { Err(invalid()) } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        // `u16::from_str` takes a leading plus sign.
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let port = port.parse::<u16>().map_err(|_| invalid())?;
        let ip = match host {
            "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(v6) => IpAddr::V6(v6.parse().map_err(|_| invalid())?),
                None => IpAddr::V4(host.parse().map_err(|_| invalid())?),
            },
        };
        Ok(Self::Tcp(SocketAddr::new(ip, port)))
    }
}

/// An open listener. Dropping it closes it and removes its socket file.
#[derive(Debug)]
pub struct Listener {
    listen: Listen,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Where it listens, with the real port where 0 was asked for.
    pub fn local(&self) -> &Listen {
        &self.listen
    }

    /// Waits for the next connection. Cancel safe.
    ///
    /// # Errors
    /// Those of `accept(2)`: most concern one connection only, so a server waits a little and goes on.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.inner {
            Inner::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Inner::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listen::Unix(path) = &self.listen {
            // Nothing can be done about a failure, and the next `bind` replaces the file.
            _ = remove_socket(path);
        }
    }
}

/// One accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix domain socket.
    Unix(UnixStream),
}

impl Stream {
    /// Takes the connection off the runtime it was accepted on.
    pub(super) fn unbind(self) -> io::Result<Unbound> {
        Ok(match self {
            Self::Tcp(stream) => Unbound::Tcp(stream.into_std()?),
            Self::Unix(stream) => Unbound::Unix(stream.into_std()?),
        })
    }
}

/// A connection that belongs to no runtime, so that another thread can take it.
#[derive(Debug)]
pub(super) enum Unbound {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Unbound {
    /// Puts the connection on the runtime this is called in.
    pub(super) fn bind(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// Connections of a listener, as axum takes them.
#[derive(Debug)]
pub(crate) struct Incoming(pub(crate) Listener);

impl axum::serve::Listener for Incoming {
    type Io = Stream;
    type Addr = Listen;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok(stream) => return (stream, self.0.local().clone()),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.0.local().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_an_address() {
        let ok = |text: &str, shown: &str| assert_eq!(text.parse::<Listen>().unwrap().to_string(), shown);
        ok(":8080", "[::]:8080");
        ok("127.0.0.1:0", "127.0.0.1:0");
        ok("localhost:1", "127.0.0.1:1");
        ok("[::1]:65535", "[::1]:65535");
        ok("unix:///tmp/a b", "unix:///tmp/a b");
        for bad in ["", "8080", ":", ":+1", ":65536", "host:1", "::1:80", "[::1]", "unix://", "1.2.3.4:x"] {
            let error = bad.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")) && error.contains("unix:///"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_unix_listener_replaces_a_stale_socket_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // A socket whose owner has died is a file that nobody accepts on.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listen::Unix(path.clone()).bind().unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), UnixStream::connect(&path));
        accepted.unwrap();
        connected.unwrap();
        drop(listener);
        assert!(!path.exists());

        std::fs::write(&path, "precious").unwrap();
        let error = Listen::Unix(path.clone()).bind().unwrap_err().to_string();
        assert!(error.contains("not a socket") && error.contains("unix://"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = "127.0.0.1:0".parse::<Listen>().unwrap().bind().unwrap();
        let error = first.local().bind().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&first.local().to_string()), "{error}");
    }
}
