//! Configurations that a controller pushes to processors: over real sockets, with certificates on both sides.

mod hostile;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ai_gateway::push::Grant;
use ai_gateway::push::certificates::{AUTHORITY, OVERLAP};
use ai_gateway::server::{Listen, Processor, ProcessorOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::controller::{Follower, Plane, Proxy, Trust, cached, controller, document};
use crate::support::until;

#[tokio::test]
async fn an_edition_comes_into_force_at_every_replica() {
    let trust = Trust::new();
    let plane = Plane::new(&trust);
    let files = trust.files("all", &[Grant::All]);
    let replicas = ["one", "two"].map(|name| Follower::new(controller(plane.address, files.clone(), name)));
    plane.publish("d/a", 1, &document("d/a", "a", 1));
    plane.publisher.start();
    plane.taken("d/a", 1, 2).await;
    assert!(replicas.iter().all(|replica| replica.serves("a") && replica.generation("d/a") == Some(1)));
    for rules in [100, 10_000] {
        let edition = document("d/a", "a", rules);
        let begun = Instant::now();
        plane.publish("d/a", rules as u64, &edition);
        plane.taken("d/a", rules as u64, 2).await;
        // Told, and held to nothing.
        println!(
            "{rules} rules, {} bytes: in force at two replicas after {:?}",
            edition.to_string().len(),
            begun.elapsed()
        );
    }
    let shown = plane.publisher.replicas();
    let names: Vec<_> = shown.iter().map(|replica| replica.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(
        shown.iter().all(|replica| replica.running[0].generation == 10_000 && replica.refused.is_empty())
    );
    // Nobody is waited for who is not there.
    let [one, two] = replicas;
    drop(one);
    until("a replica is gone", async || plane.publisher.replicas().len() == 1).await;
    plane.publish("d/a", 10_001, &document("d/a", "a", 2));
    plane.taken("d/a", 10_001, 1).await;
    assert!(two.serves("a"));
}

#[tokio::test]
async fn many_gateways_are_served_at_once_and_one_is_changed_alone() {
    let trust = Trust::new();
    let plane = Plane::new(&trust);
    for index in 0..100 {
        let gateway = format!("d/gw{index}");
        plane.publish(&gateway, 1, &document(&gateway, &format!("a{index}"), 100));
    }
    plane.publisher.start();
    let begun = Instant::now();
    let follower = Follower::new(controller(plane.address, trust.files("all", &[Grant::All]), "one"));
    until("all are in force", async || follower.serves("a0") && follower.serves("a99")).await;
    println!("100 Gateways of 100 rules: in force after {:?}", begun.elapsed());
    // Not before all were there.
    assert!((0..100).all(|index| follower.serves(&format!("a{index}"))));
    let other = follower.slot.load().unwrap().gateway("a1").unwrap();
    let begun = Instant::now();
    plane.publish("d/gw0", 2, &document("d/gw0", "a0", 101));
    plane.taken("d/gw0", 2, 1).await;
    println!("one of 100 Gateways changed: in force after {:?}", begun.elapsed());
    let same = follower.slot.load().unwrap().gateway("a1").unwrap();
    assert!(std::sync::Arc::ptr_eq(&other, &same), "another Gateway was compiled again");
}

#[tokio::test]
async fn after_a_reconnect_only_what_changed_is_sent() {
    let trust = Trust::new();
    let plane = Plane::new(&trust);
    let proxy = Proxy::new(plane.address).await;
    plane.publish("d/large", 1, &document("d/large", "large", 5_000));
    plane.publish("d/small", 1, &document("d/small", "small", 1));
    plane.publisher.start();
    let follower = Follower::new(controller(proxy.address, trust.files("all", &[Grant::All]), "one"));
    plane.taken("d/large", 1, 1).await;
    let first = proxy.sent.swap(0, Ordering::SeqCst);
    assert!(first > 500_000, "{first}");
    proxy.cut();
    until("it is gone", async || !follower.status().connected).await;
    assert!(follower.serves("large"), "what is in force stays");
    plane.publish("d/small", 2, &document("d/small", "small", 2));
    // The same document, counted anew.
    plane.publish("d/large", 7, &document("d/large", "large", 5_000));
    plane.taken("d/small", 2, 1).await;
    plane.taken("d/large", 7, 1).await;
    assert_eq!(follower.generation("d/large"), Some(7));
    let again = proxy.sent.load(Ordering::SeqCst);
    assert!(again < 50_000, "{again} bytes were sent again");
}

#[tokio::test]
async fn a_transfer_that_is_cut_off_begins_anew() {
    let trust = Trust::new();
    let plane = Plane::new(&trust);
    let proxy = Proxy::new(plane.address).await;
    proxy.most.store(300_000, Ordering::SeqCst);
    plane.publish("d/large", 1, &document("d/large", "large", 5_000));
    plane.publisher.start();
    let follower = Follower::new(controller(proxy.address, trust.files("all", &[Grant::All]), "one"));
    until("it was cut off", async || proxy.sent.load(Ordering::SeqCst) > 600_000).await;
    assert!(follower.slot.load().is_none());
    proxy.most.store(u64::MAX, Ordering::SeqCst);
    plane.taken("d/large", 1, 1).await;
    assert!(follower.serves("large"));
}

#[tokio::test]
async fn certificates_say_who_may_see_what() {
    let (trust, others) = (Trust::new(), Trust::new());
    let plane = Plane::new(&trust);
    for gateway in ["d/a", "d/b"] {
        plane.publish(gateway, 1, &document(gateway, &gateway[2..], 1));
    }
    plane.publisher.start();
    let only_b = trust.files("b", &[Grant::Gateway("d/b".to_owned())]);
    let follower = Follower::new(controller(plane.address, only_b.clone(), "b"));
    plane.taken("d/b", 1, 1).await;
    assert!(follower.serves("b") && !follower.serves("a"));
    let mut asking = controller(plane.address, only_b.clone(), "asks");
    asking.gateways = vec!["d/a".to_owned()];
    Follower::new(asking).problem("does not name the Gateway d/a").await;
    // Valid, and for nothing.
    let nothing = controller(plane.address, trust.files("nothing", &[]), "nothing");
    Follower::new(nothing).problem("names no Gateway").await;
    // Of an authority that the controller does not trust, and the other way round.
    let mut strange = others.files("strange", &[Grant::All]);
    let untrusted = Follower::new(controller(plane.address, strange.clone(), "strange"));
    untrusted.problem("invalid peer certificate").await;
    strange.ca = only_b.ca.clone();
    let unknown = Follower::new(controller(plane.address, strange, "unknown"));
    until("it is sent away", async || unknown.status().problem.is_some()).await;
    assert!(untrusted.slot.load().is_none() && unknown.slot.load().is_none());
    assert_eq!(plane.publisher.replicas().len(), 1);
}

#[tokio::test]
async fn a_start_without_a_controller_is_one_from_the_cache() {
    let (trust, folder) = (Trust::new(), tempfile::tempdir().unwrap());
    let plane = Plane::new(&trust);
    let files = trust.files("all", &[Grant::All]);
    let mut with_cache = controller(plane.address, files.clone(), "one");
    with_cache.cache = Some(folder.path().join("cache"));
    for gateway in ["d/a", "d/b", "d/c"] {
        plane.publish(gateway, 3, &document(gateway, &gateway[2..], 1));
    }
    plane.publisher.start();
    let folder = folder.path().join("cache");
    let follower = Follower::new(with_cache.clone());
    until("all are kept", async || folder.exists() && cached(&folder).len() == 3).await;
    plane.publisher.withdraw("d/c");
    until("one is forgotten", async || !follower.serves("c") && cached(&folder).len() == 2).await;
    let address = plane.address;
    drop((plane, follower));

    let follower = Follower::new(with_cache.clone());
    until("the cache is served", async || follower.serves("a") && follower.serves("b")).await;
    assert!(!follower.serves("c") && follower.status().gateways.iter().all(|gateway| gateway.cached));
    assert_eq!(follower.generation("d/a"), Some(3));
    // Without one there is nothing, and so no readiness.
    let bare = Follower::new(controller(address, files, "bare"));
    bare.problem("").await;
    assert!(bare.slot.load().is_none());
    // A controller that is not ready to serve changes nothing.
    let plane = Plane::at(&trust, address);
    follower.problem("does not serve processors now").await;
    assert!(follower.serves("a"));
    plane.publish("d/a", 1, &document("d/a", "a", 1));
    plane.publisher.start();
    plane.taken("d/a", 1, 2).await;
    until("what is no more goes", async || !follower.serves("b")).await;
    assert!(!follower.status().gateways[0].cached);
    until("the cache follows", async || cached(&folder).len() == 1).await;
    drop((plane, follower, bare));

    // A damaged one is as none.
    let file = cached(&folder).pop().unwrap();
    let mut content = std::fs::read(&file).unwrap();
    *content.last_mut().unwrap() ^= 1;
    std::fs::write(&file, content).unwrap();
    let follower = Follower::new(with_cache);
    follower.problem("").await;
    assert!(follower.slot.load().is_none());
}

#[tokio::test]
async fn a_bad_document_is_refused_by_name_and_the_others_stay() {
    let trust = Trust::new();
    let plane = Plane::new(&trust);
    plane.publish("d/a", 1, &document("d/a", "a", 1));
    plane.publish("d/b", 1, &document("d/b", "b", 1));
    plane.publisher.start();
    let follower = Follower::new(controller(plane.address, trust.files("all", &[Grant::All]), "one"));
    plane.taken("d/b", 1, 1).await;
    let stranger = document("d/other", "x", 1);
    let taken = document("d/a", "b", 1);
    for (generation, bad, told) in [
        (2, serde_json::json!({"gateways": [{"nmae": "d/a"}]}), "nmae"),
        (3, serde_json::json!({}), "no Gateway"),
        (4, stranger, "d/other"),
        (5, taken, "d/b"),
    ] {
        plane.publish("d/a", generation, &bad);
        let refused = plane.publisher.taken("d/a", generation, Duration::from_secs(60)).await.refused;
        assert!(refused[0].problems[0].contains(told), "{refused:?}");
    }
    plane.publish("d/b", 2, &document("d/b", "b", 2));
    plane.taken("d/b", 2, 1).await;
    assert_eq!((follower.generation("d/a"), follower.generation("d/b")), (Some(1), Some(2)));
    // An item of it that cannot be served is named, and the rest is in force.
    let mut partly = document("d/a", "a", 2);
    partly["backends"][0]["auth"]["apiKey"]["key"] = " ".into();
    plane.publish("d/a", 6, &partly);
    plane.taken("d/a", 6, 1).await;
    let running = &plane.publisher.replicas()[0].running[0];
    assert!(running.problems[0].contains("backends[0].auth.apiKey.key"), "{running:?}");
    assert!(!running.problems.iter().any(|problem| problem.contains("sk-")));
}

#[tokio::test]
async fn certificates_are_replaced_under_a_stream_that_goes_on() {
    let mut trust = Trust::new();
    let plane = Plane::new(&trust);
    let proxy = Proxy::new(plane.address).await;
    plane.publish("d/a", 1, &document("d/a", "a", 1));
    plane.publisher.start();
    let follower = Follower::new(controller(proxy.address, trust.files("all", &[Grant::All]), "one"));
    plane.taken("d/a", 1, 1).await;
    let since = plane.publisher.replicas()[0].since;

    // Another authority is there, and after a while it signs.
    let mut then = SystemTime::now() + AUTHORITY;
    assert!(trust.authorities.renew(then).unwrap());
    then += OVERLAP + Duration::from_secs(600);
    let both = trust.authorities.certificates();
    let server = trust.authorities.server(&["localhost".to_owned()], then).unwrap();
    assert!(plane.tls.replace("", &server.key, &both).is_err(), "what cannot be used leaves what is there");
    // Those in the tests are valid now: the old authority's, shown by who trusts both.
    let server = trust.server();
    plane.tls.replace(&server.certificate, &server.key, &both).unwrap();
    trust.files("all", &[Grant::All]);
    plane.publish("d/a", 2, &document("d/a", "a", 2));
    plane.taken("d/a", 2, 1).await;
    assert_eq!(plane.publisher.replicas()[0].since, since, "the stream did not go on");

    // Everything anew: the controller and the processor's files. The next connection is by these.
    let anew = Trust::new();
    let server = anew.server();
    plane.tls.replace(&server.certificate, &server.key, &anew.authorities.certificates()).unwrap();
    plane.publish("d/a", 3, &document("d/a", "a", 3));
    plane.taken("d/a", 3, 1).await;
    assert_eq!(plane.publisher.replicas()[0].since, since, "the stream did not go on");
    proxy.cut();
    follower.problem("certificate").await;
    let (old, new) = (trust.files("all", &[Grant::All]), anew.files("all", &[Grant::All]));
    for (old, new) in [(old.ca, new.ca), (old.certificate, new.certificate), (old.key, new.key)] {
        std::fs::copy(new, old).unwrap();
    }
    plane.publish("d/a", 4, &document("d/a", "a", 4));
    plane.taken("d/a", 4, 1).await;
}

#[tokio::test]
async fn a_processor_is_ready_once_it_has_a_configuration_and_shows_it() {
    let trust = Trust::new();
    let plane = Plane::new(&trust);
    let follower = Follower::new(controller(plane.address, trust.files("all", &[Grant::All]), "one"));
    let local = Listen::Tcp(([127, 0, 0, 1], 0).into());
    let options = ProcessorOptions {
        admin: Some(local.clone()),
        ..ProcessorOptions::new(local, follower.slot.clone())
    };
    let processor = Processor::start(options).unwrap();
    let Some(Listen::Tcp(admin)) = processor.admin().cloned() else { panic!("no admin listener") };
    let get = async |path: &str| {
        let mut connection = TcpStream::connect(admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    };
    follower.problem("").await;
    assert!(get("/health").await.starts_with("HTTP/1.1 503"));
    // A controller with nothing to serve is one.
    plane.publisher.start();
    until("it is ready", async || get("/health").await.starts_with("HTTP/1.1 200")).await;
    plane.publish("d/a", 9, &document("d/a", "a", 1));
    plane.taken("d/a", 9, 1).await;
    let shown = get("/config").await;
    for part in ["\"generation\": 9", "\"connected\": true", "\"fromCache\": false", "\"authority\": \"a\""] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains("sk-0"), "{shown}");
    let metrics = get("/metrics").await;
    for series in ["aigw_config_generation{gateway=\"d/a\"", "aigw_config_controller_connected{"] {
        assert!(metrics.contains(series), "{series} is not in {metrics}");
    }
    assert!(get("/health").await.contains("the controller is connected"));
}
