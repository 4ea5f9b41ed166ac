//! Peers that have good certificates and bad intentions.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use ai_gateway::proto::config_stream::config_stream_client::ConfigStreamClient;
use ai_gateway::proto::config_stream::config_stream_server::{ConfigStream, ConfigStreamServer};
use ai_gateway::proto::config_stream::from_controller::Message;
use ai_gateway::proto::config_stream::{
    Complete, Edition, FromController, FromProcessor, Hello, Part, Verdict, Welcome, from_processor,
};
use ai_gateway::push::Grant;
use ai_gateway::source::ControllerFiles;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::support::controller::{Follower, Plane, Trust, controller, document};
use crate::support::{spawn, until};

fn client(files: &ControllerFiles, certificate: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(&files.ca).unwrap() {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = if certificate {
        let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
        builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap()).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn channel(plane: &Plane, config: ClientConfig) -> Result<Channel, tonic::transport::Error> {
    let address = plane.address;
    let connect = move |_: http::Uri| {
        let connector = TlsConnector::from(Arc::new(config.clone()));
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    };
    Endpoint::from_static("http://localhost").connect_with_connector(tower::service_fn(connect)).await
}

fn hello(protocol: u32, replica: &str) -> FromProcessor {
    let hello = Hello { protocol, replica: replica.to_owned(), ..Hello::default() };
    FromProcessor { message: Some(from_processor::Message::Hello(hello)) }
}

fn verdict(gateway: &str, sha256: usize) -> FromProcessor {
    let sha256 = Bytes::from(vec![0; sha256]);
    let verdict = Verdict { gateway: gateway.to_owned(), sha256, in_force: true, ..Verdict::default() };
    FromProcessor { message: Some(from_processor::Message::Verdict(verdict)) }
}

/// What becomes of somebody who says that.
async fn end_of<S>(channel: Channel, said: S) -> Code
where
    S: Stream<Item = FromProcessor> + Send + 'static,
{
    match ConfigStreamClient::new(channel).follow(said).await {
        Err(status) => status.code(),
        Ok(answer) => {
            let mut inbound = answer.into_inner();
            loop {
                match inbound.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Code::Ok,
                    Err(status) => return status.code(),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_controller_survives_hostile_processors() {
    let trust = Trust::new();
    let plane = Plane::new(&trust);
    plane.publish("d/a", 1, &document("d/a", "a", 1));
    plane.publisher.start();
    let files = trust.files("all", &[Grant::All]);
    let good = Follower::new(controller(plane.address, files.clone(), "good"));
    plane.taken("d/a", 1, 1).await;

    // Without a certificate nobody gets as far as a stream.
    let bare = channel(&plane, client(&files, false)).await;
    if let Ok(channel) = bare {
        assert_ne!(end_of(channel, stream::iter([hello(1, "bare")])).await, Code::Ok);
    }
    let channel = channel(&plane, client(&files, true)).await.unwrap();
    let silent = stream::iter([]);
    assert_eq!(end_of(channel.clone(), silent).await, Code::InvalidArgument);
    let mut long = hello(1, "long");
    let Some(from_processor::Message::Hello(said)) = &mut long.message else { panic!() };
    said.version = "v".repeat(5 << 20);
    for (said, code) in [
        (vec![hello(2, "later")], Code::FailedPrecondition),
        (vec![hello(1, "a b\n")], Code::InvalidArgument),
        (vec![verdict("d/a", 32)], Code::InvalidArgument),
        (vec![hello(1, "twice"), hello(1, "twice")], Code::InvalidArgument),
        (vec![hello(1, "digest"), verdict("d/a", 7)], Code::InvalidArgument),
        (vec![long], Code::OutOfRange),
    ] {
        let stays = stream::iter(said).chain(stream::pending());
        assert_eq!(end_of(channel.clone(), stays).await, code);
    }
    // One that never ends, of Gateways that there are not, is read and means nothing.
    let endless = stream::iter([hello(1, "endless")]).chain(stream::repeat_with(|| verdict("d/none", 32)));
    let flooding = end_of(channel.clone(), endless.take(20_000));
    assert_eq!(flooding.await, Code::Ok);
    // And one that reads nothing keeps nobody waiting.
    let mut deaf = ConfigStreamClient::new(channel.clone());
    let said = stream::iter([hello(1, "deaf")]).chain(stream::pending());
    let unread = deaf.follow(said).await.unwrap();
    for generation in 2..6 {
        plane.publish("d/a", generation, &document("d/a", "a", 3_000 + generation as usize));
        until("it is in force", async || good.generation("d/a") == Some(generation)).await;
    }
    drop(unread);
}

/// A controller with bad intentions: on each stream it says another of these things, and after them what it should.
struct Bad {
    says: Vec<Vec<Message>>,
    streams: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl ConfigStream for Bad {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<FromController, Status>> + Send>>;

    async fn follow(
        &self,
        _: Request<Streaming<FromProcessor>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let stream = self.streams.fetch_add(1, Ordering::SeqCst);
        let said = self.says[stream.min(self.says.len() - 1)].clone();
        let said = said.into_iter().map(|message| Ok(FromController { message: Some(message) }));
        Ok(Response::new(Box::pin(stream::iter(said).chain(stream::pending()))))
    }
}

/// What tonic serves on.
struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Serves connections with the installation's certificate. What is no controller says garbage first.
async fn serve(trust: &Trust, bad: Bad) -> SocketAddr {
    let issued = trust.server();
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.expose_secret().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = stream::unfold((listener, 0), move |(listener, mut count)| {
        let acceptor = acceptor.clone();
        async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                count += 1;
                if count == 1 {
                    // Not even HTTP.
                    _ = stream.write_all(&[0xff; 100_000]).await;
                    continue;
                }
                return Some((Ok::<_, io::Error>(Io(stream)), (listener, count)));
            }
        }
    });
    spawn(async move {
        let service = ConfigStreamServer::new(bad);
        Server::builder().serve_with_incoming(service, incoming).await.unwrap();
    });
    address
}

#[tokio::test]
async fn a_processor_survives_a_hostile_controller() {
    let trust = Trust::new();
    let welcome = || Message::Welcome(Welcome { protocol: 1, heartbeat_millis: 5_000 });
    let edition = |gateway: &str, document: &str, size: u64| {
        let sum = ring::digest::digest(&ring::digest::SHA256, document.as_bytes());
        let sha256 = Bytes::copy_from_slice(sum.as_ref());
        Message::Edition(Edition { gateway: gateway.to_owned(), generation: 1, sha256, size })
    };
    let part = |data: &str| Message::Part(Part { data: Bytes::copy_from_slice(data.as_bytes()) });
    let good = document("d/a", "a", 1).to_string();
    let size = good.len() as u64;
    let whole = || vec![welcome(), edition("d/a", &good, size), part(&good), Message::Complete(Complete {})];
    let says = vec![
        whole(),
        // More than a message may have; more than was announced; more than there may be; without end.
        vec![welcome(), edition("d/b", "", 60 << 20), part(&"x".repeat(5 << 20))],
        vec![welcome(), edition("d/b", "xy", 2), part("xyz")],
        vec![welcome(), edition("d/b", "", u64::MAX)],
        vec![welcome(), edition("d/b", "", 60 << 20), part("")],
        vec![welcome(), edition("../../d", "x", 1), part("x")],
        vec![welcome(), edition("d/b", "other", 1), part("x")],
        vec![welcome(), edition("d/b", "what it has not", 0)],
        vec![Message::Complete(Complete {})],
        whole(),
    ];
    let (last, streams) = (says.len(), Arc::new(AtomicUsize::new(0)));
    let address = serve(&trust, Bad { says, streams: Arc::clone(&streams) }).await;
    let follower = Follower::new(controller(address, trust.files("all", &[Grant::All]), "one"));
    until("it has come through all of it", async || {
        if follower.serves("a") {
            assert!(!follower.serves("b"));
        }
        streams.load(Ordering::SeqCst) >= last && follower.status().connected
    })
    .await;
    assert!(follower.serves("a"), "what was in force stays");
    assert_eq!(follower.status().gateways.len(), 1);
}
