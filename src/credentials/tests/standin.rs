//! A place that gives out tokens, as strict as the real one: what it is asked is recorded, and each test says what it answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Asked {
    /// A field of a form.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        assert_eq!(self.headers["content-type"], "application/x-www-form-urlencoded");
        let (_, value) =
            self.body.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?;
        let mut bytes = value.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            decoded.push(match byte {
                b'%' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                byte => byte,
            });
        }
        Some(String::from_utf8(decoded).unwrap())
    }
}

pub(super) struct Standin {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Standin {
    pub(super) fn start(answer: impl Fn(&Asked) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let record = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answer, &record);
            }
        });
        Self { address, asked }
    }

    /// By TLS, as `localhost`; comes with the certificate to be trusted.
    pub(super) fn start_tls(
        answer: impl Fn(&Asked) -> (u16, String) + Send + 'static,
    ) -> (Self, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let root = made.cert.der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![root.clone()], key.into()).unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let record = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = stream.unwrap();
                // A client that does not trust it leaves.
                if connection.complete_io(&mut stream).is_ok() {
                    serve(StreamOwned::new(connection, stream), &answer, &record);
                }
            }
        });
        (Self { address, asked }, root)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The only request there was.
    pub(super) fn only(&self) -> Asked {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }
}

/// Leads every connection to `to`, whatever it is asked for; tells what that was.
pub(super) fn tunnel(to: SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let record = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                (&stream).read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            record.lock().unwrap().push(head.lines().next().unwrap().to_owned());
            (&stream).write_all(b"HTTP/1.1 200 X\r\n\r\n").unwrap();
            let other = TcpStream::connect(to).unwrap();
            let (mut from, mut into) = (stream.try_clone().unwrap(), other.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut into));
            let (mut from, mut into) = (other, stream);
            // Whoever asked may have left.
            let _ = std::io::copy(&mut from, &mut into);
        }
    });
    (url, asked)
}

fn serve<S: Read + Write>(stream: S, answer: &impl Fn(&Asked) -> (u16, String), record: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let asked = Asked { method, target, headers, body: String::from_utf8(body).unwrap() };
    let (status, text) = answer(&asked);
    record.lock().unwrap().push(asked);
    let mut stream = reader.into_inner();
    // Whoever asked may have left.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    let _ = stream.flush();
}
