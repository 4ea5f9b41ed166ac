use std::time::UNIX_EPOCH;

use super::*;

fn stored(gateway: &str, generation: u64, document: &'static str) -> Stored {
    let sha256 = Sha256::of(document.as_bytes());
    Stored { gateway: gateway.into(), generation, sha256, document: document.into() }
}

fn peer(instance: u8, grants: &[&str], held: &[(&str, u64, &str)]) -> Peer {
    let held = held.iter().map(|(gateway, generation, document)| {
        ((*gateway).to_owned(), (*generation, Sha256::of(document.as_bytes())))
    });
    Peer {
        replica: format!("replica-{instance}"),
        instance: vec![instance],
        version: "1".to_owned(),
        grants: grants.iter().map(|grant| grant.parse().unwrap()).collect(),
        gateways: BTreeSet::new(),
        held: held.collect(),
    }
}

const ALL: &[&str] = &["aigw://gateways/*"];

struct Rig(Ledger);

impl Rig {
    fn new(published: &[(&str, u64, &'static str)]) -> Self {
        let mut ledger = Ledger::default();
        ledger.serve(true);
        for (gateway, generation, document) in published {
            ledger.publish(stored(gateway, *generation, document));
        }
        Self(ledger)
    }

    fn connect(&mut self, peer: Peer) -> u64 {
        self.0.connect(peer, UNIX_EPOCH).unwrap()
    }

    /// Everything somebody is told, as `gateway generation`, with a `=` in front where the document is not sent.
    fn told(&mut self, id: u64) -> Vec<String> {
        let next = |next| match next {
            Next::Edition { stored, held } => {
                format!("{}{} {}", if held { "=" } else { "" }, stored.gateway, stored.generation)
            }
            Next::Withdrawal(gateway) => format!("-{gateway}"),
            Next::Complete => "complete".to_owned(),
        };
        std::iter::from_fn(|| self.0.next(id)).map(next).collect()
    }

    fn says(&mut self, id: u64, gateway: &str, generation: u64, document: &str, in_force: bool) -> bool {
        let sha256 = Sha256::of(document.as_bytes());
        let problems = if in_force { Vec::new() } else { vec!["no".to_owned()] };
        self.0.note(id, Verdict { gateway: gateway.to_owned(), generation, sha256, in_force, problems })
    }
}

#[test]
fn somebody_is_told_what_it_has_not_and_what_it_has_no_more() {
    let mut rig = Rig::new(&[("d/a", 7, "a"), ("d/b", 2, "b2"), ("e/c", 1, "c")]);
    let id = rig.connect(peer(1, ALL, &[("d/a", 5, "a"), ("d/b", 9, "b1"), ("d/gone", 1, "x")]));
    assert_eq!(rig.told(id), ["=d/a 7", "d/b 2", "e/c 1", "-d/gone", "complete"]);
    assert_eq!(rig.told(id), [""; 0]);
    rig.0.publish(stored("d/b", 3, "b3"));
    rig.0.publish(stored("d/b", 4, "b4"));
    rig.0.withdraw("e/c");
    assert_eq!(rig.told(id), ["d/b 4", "-e/c"]);
}

#[test]
fn a_document_is_left_out_only_if_it_is_in_force() {
    let mut rig = Rig::new(&[("d/a", 1, "a")]);
    let id = rig.connect(peer(1, ALL, &[]));
    assert_eq!(rig.told(id), ["d/a 1", "complete"]);
    rig.0.publish(stored("d/a", 2, "a"));
    assert_eq!(rig.told(id), ["d/a 2"], "it has not said that it took it");
    assert!(rig.says(id, "d/a", 2, "a", true));
    rig.0.publish(stored("d/a", 3, "a"));
    assert_eq!(rig.told(id), ["=d/a 3"]);
    // While it is busy with another, who knows which it has by then.
    rig.0.publish(stored("d/a", 4, "b"));
    assert_eq!(rig.told(id), ["d/a 4"]);
    rig.0.publish(stored("d/a", 5, "a"));
    assert_eq!(rig.told(id), ["d/a 5"]);
}

#[test]
fn nobody_is_told_more_than_its_certificate_allows() {
    let mut rig = Rig::new(&[("d/a", 1, "a"), ("d/b", 1, "b"), ("e/c", 1, "c")]);
    let one = rig.connect(peer(1, &["aigw://gateways/d/b"], &[("d/a", 1, "a")]));
    assert_eq!(rig.told(one), ["d/b 1", "-d/a", "complete"]);
    let two = rig.connect(peer(2, &["aigw://gateways/d/*"], &[]));
    assert_eq!(rig.told(two), ["d/a 1", "d/b 1", "complete"]);
    let mut asks = peer(3, ALL, &[]);
    asks.gateways.insert("e/c".to_owned());
    let three = rig.connect(asks);
    assert_eq!(rig.told(three), ["e/c 1", "complete"]);
    // Nor is a word of others' Gateways believed.
    assert!(!rig.says(one, "d/a", 1, "a", true));
    assert_eq!(rig.0.taken("d/a", 1).waiting, ["replica-2"]);
}

#[test]
fn a_gateway_that_changes_all_the_time_keeps_no_other_waiting() {
    let mut rig = Rig::new(&[("d/a", 1, "a"), ("d/b", 1, "b")]);
    let id = rig.connect(peer(1, ALL, &[]));
    let mut told = Vec::new();
    for generation in 2..4 {
        let Some(Next::Edition { stored: edition, .. }) = rig.0.next(id) else { panic!() };
        told.push(edition.gateway.to_string());
        rig.0.publish(stored("d/a", generation, "a"));
    }
    assert_eq!(told, ["d/a", "d/b"]);
}

#[test]
fn what_is_taken_is_what_was_said_on_this_connection() {
    let mut rig = Rig::new(&[("d/a", 3, "new")]);
    // Another controller counted higher.
    let one = rig.connect(peer(1, ALL, &[("d/a", 57, "old")]));
    let two = rig.connect(peer(2, ALL, &[]));
    rig.told(one);
    rig.told(two);
    assert_eq!(rig.0.taken("d/a", 3).waiting.len(), 2);
    assert!(!rig.says(one, "d/a", 2, "old", true), "that edition was never sent");
    assert!(rig.says(one, "d/a", 3, "new", true) && rig.says(two, "d/a", 3, "new", false));
    let taken = rig.0.taken("d/a", 3);
    assert!(taken.is_settled(), "{taken:?}");
    assert_eq!((taken.in_force[0].as_str(), taken.refused[0].replica.as_str()), ("replica-1", "replica-2"));
    let replicas = rig.0.replicas();
    assert_eq!((replicas[0].running[0].generation, replicas[1].refused[0].generation), (3, 3));
    assert!(!rig.0.taken("d/a", 4).is_settled());
    assert!(!rig.0.taken("d/none", 1).in_force.iter().any(|_| true));
    rig.0.disconnect(two);
    assert_eq!(rig.0.taken("d/a", 3).refused, []);
}

#[test]
fn a_process_is_connected_once() {
    let mut rig = Rig::new(&[]);
    let first = rig.connect(peer(1, ALL, &[]));
    let second = rig.connect(peer(1, ALL, &[]));
    assert!(!rig.0.is_connected(first) && rig.0.is_connected(second));
    // With other rights it is another: nobody takes a place that is not its own.
    rig.connect(peer(1, &["aigw://gateways/d/a"], &[]));
    assert!(rig.0.is_connected(second));
    assert_eq!(rig.0.replicas().len(), 2);
    rig.0.serve(false);
    assert!(!rig.0.is_connected(second) && rig.0.connect(peer(1, ALL, &[]), UNIX_EPOCH).is_none());
}
