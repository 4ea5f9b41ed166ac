//! Requests written byte by byte, by somebody who knows even the names of the headers that nobody can guess.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::Version;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{CHAT, ON_GATEWAY, ON_ROUTE, SECRETS, body, gateway, keys, told};
use crate::support::backend::Backend;
use crate::support::gateway::Gateway;
use crate::support::http::post;

/// Sends a request with these lines among its headers, as they are; the status of the answer, or 0 where there is none.
async fn raw(addr: SocketAddr, lines: &[String], model: &str) -> u16 {
    let body = body(model);
    let mut socket = TcpStream::connect(addr).await.expect("connect");
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    let request =
        format!("{head}{}\r\n{body}", lines.iter().map(|line| format!("{line}\r\n")).collect::<String>());
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    // A connection that Envoy resets has told what it had to tell.
    _ = BufReader::new(socket).read_line(&mut answer).await;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The headers in which Envoy leaves its proofs, as its own files have them.
pub(super) fn proof_headers(gateway: &Gateway) -> BTreeSet<String> {
    let files = std::fs::read_dir(gateway.runtime_dir())
        .expect("a folder")
        .map(|file| file.expect("an entry").path());
    let texts = files.filter(|path| path.is_file()).filter_map(|path| std::fs::read_to_string(path).ok());
    let names = texts.flat_map(|text| {
        let names = text.match_indices("x-ai-eg-auth-").map(|(at, _)| {
            text[at..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
                .collect::<String>()
        });
        names.collect::<Vec<_>>()
    });
    names.collect()
}

/// Every way to write the name of a proof, each with the tenant of somebody else.
fn forged(name: &str) -> Vec<Vec<String>> {
    let one = |line: String| vec![line];
    vec![
        one(format!("{name}: acme.research.ci")),
        one(format!("{}: acme.research.ci", name.to_ascii_uppercase())),
        one(format!("{name}:\tacme.research.ci\t")),
        one(format!("{name}:acme.research.ci, other.web.app")),
        vec![format!("{name}: acme.research.ci"), format!("{name}: acme.research.ci")],
        vec![format!("{name}: -"), format!("{}: acme.research.ci", name.to_ascii_uppercase())],
        vec![format!("{name}: acme.research.ci"), format!("Connection: close, {name}")],
        vec![format!("Connection: {name}"), format!("{name}: acme.research.ci")],
        // What follows has no right to be a header, or to be this one.
        one(format!("{name} : acme.research.ci")),
        one(format!("{name}\t: acme.research.ci")),
        one(format!(" {name}: acme.research.ci")),
        vec!["x-folded: a".to_owned(), format!("\t{name}: acme.research.ci")],
        one(format!("x-split: a\r{name}: acme.research.ci")),
        one(format!("x-split: a\n{name}: acme.research.ci")),
        one(format!("x-null: a\0{name}: acme.research.ci")),
        one(format!("{}: acme.research.ci", name.replace('-', "_"))),
        one(format!("{name}%20: acme.research.ci")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_proof_proves_nothing_however_it_is_written() {
    for target in [ON_ROUTE, ON_GATEWAY] {
        let backend = Backend::start(&[]).await;
        let Some(gateway) = gateway(&backend, &keys(target)).await else { return };
        let names = proof_headers(&gateway);
        assert!(!names.is_empty(), "the headers of proofs are not found");
        let known =
            ["x-ai-eg-tenant", "x-ai-eg-model", "x-ai-eg-route", "x-ai-eg-original-path", "x-ai-eg-attempt"];
        // Those that say nothing of tenants, in their usual forms.
        let all = names.iter().map(|name| (name.as_str(), usize::MAX)).chain(known.map(|name| (name, 3)));
        for (name, forms) in all {
            for lines in forged(name).into_iter().take(forms) {
                let status = raw(gateway.addr, &lines, "paid").await;
                // Some of it is no HTTP at all.
                assert!([0, 400, 401].contains(&status), "{target}: {status} for {lines:?}");
                // Beside another tenant's own key it makes nobody somebody else.
                let mut lines = lines;
                lines.push(format!("authorization: Bearer {}", SECRETS[1]));
                let status = raw(gateway.addr, &lines, "paid").await;
                assert!([0, 400, 401, 403].contains(&status), "{target}: {status} for {lines:?}");
            }
            let forged = [(name, "acme.research.ci"), (name, "acme.research.ci")];
            let mut request = post(CHAT, &forged, body("paid"));
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = format!("http://localhost{CHAT}").parse().expect("a URL");
            request.headers_mut().remove("host");
            let answer = gateway.peer().send(request).await;
            assert_eq!(answer.status, 401, "{target}: {name} by HTTP/2");
        }
        assert_eq!(backend.counters().requests, 0, "a forged proof opened the door");

        // The key itself, as odd as HTTP lets it be: whoever shows it is who it is for.
        let (acme, other) = (SECRETS[0], SECRETS[1]);
        let shown = async |lines: &[&str], model: &str| {
            raw(gateway.addr, &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), model).await
        };
        let as_acme = format!("AUTHORIZATION:Bearer {acme}");
        let as_other = format!("Authorization: Bearer {other}");
        let tabbed = format!("X-Api-Token:\t{acme}\t");
        assert_eq!(shown(&[&as_acme], "paid").await, 200);
        assert_eq!(shown(&[&tabbed], "paid").await, 200);
        let before = backend.counters().requests;
        for lines in [
            &["Authorization: Bearer wrong", &as_acme][..],
            &[&as_other, &as_acme],
            &[&as_other, &tabbed],
            &["Authorization: Bearer", &format!("Authorization: {acme} ")],
            &[&format!("Authorization: Bearer {acme}{other}")],
            &[&format!("Authorization: Bearer {acme}, Bearer {other}")],
            &[&format!("Authorization: Basic {acme}")],
            &[&format!("X-Api-Token : {acme}")],
            &[&format!("X_Api_Token: {acme}")],
        ] {
            let status = shown(lines, "paid").await;
            assert!([0, 400, 401, 403].contains(&status), "{target}: {status} for {lines:?}");
        }
        assert_eq!(backend.counters().requests, before);
        told(&gateway, "tenant=acme/research/ci").await;
        gateway.stop().await;
    }
}
