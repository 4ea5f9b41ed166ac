use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use regex::Regex;
use secrecy::ExposeSecret as _;

use super::steps::{self, Step};
use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const STALE: Duration = Duration::from_secs(600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

/// Different for each seed, and all of it.
fn random(seed: u64) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (index, part) in bytes.chunks_mut(8).enumerate() {
        let digest =
            ring::digest::digest(&ring::digest::SHA256, &[seed.to_be_bytes(), index.to_be_bytes()].concat());
        part.copy_from_slice(&digest.as_ref()[..8]);
    }
    bytes
}

fn key(seed: u64) -> (NewKey, Record) {
    let key = NewKey::generate(&random(seed));
    let record = Record::new(&key, Grant::named(format!("key {seed}")), now()).unwrap();
    (key, record)
}

fn text(key: &NewKey) -> &[u8] {
    key.text.expose_secret().as_bytes()
}

fn index(records: impl IntoIterator<Item = Record>) -> (Index, Instant) {
    let (index, start) = (Index::new(STALE), Instant::now());
    index.replace(records);
    index.confirm(start);
    (index, start)
}

#[test]
fn a_key_looks_as_leak_scanners_are_told() {
    let (key, record) = key(1);
    let shown = key.text.expose_secret();
    let pattern = Regex::new(&format!("^{PATTERN}$")).unwrap();
    assert!(pattern.is_match(shown), "{shown}");
    assert!(shown.starts_with(&format!("{PREFIX}{}-", record.id)));
    // All bits of what was handed in are in it: another last bit is another secret, the first as well.
    for byte in [0, 31] {
        let mut other = random(1);
        other[byte] ^= 1;
        assert_ne!(NewKey::generate(&other).text.expose_secret(), shown);
    }
    assert_eq!(NewKey::generate(&[0xff; 64]).text.expose_secret().len(), shown.len());
    // Known since the first edition: keys that were given out stay good.
    assert_eq!(
        NewKey::generate(&[7; 64]).text.expose_secret(),
        "aigw-6AkSp3WsPxY7-1fJjkkpe9PiTw9KSulA8Ghct30vZz4HpdQ5c5b9cPF10XwzEc",
    );
}

#[test]
fn a_key_that_is_mistyped_is_told_without_a_lookup() {
    let (key, _) = key(1);
    let good = key.text.expose_secret().to_owned();
    for position in PREFIX.len()..good.len() {
        let mut bad = good.clone().into_bytes();
        bad[position] = if bad[position] == b'x' { b'y' } else { b'x' };
        assert!(Presented::parse(&bad).is_err(), "{position}");
    }
    assert_eq!(Presented::parse(&good.as_bytes()[..66]).err(), Some(NotAKey::Mistyped));
    assert_eq!(Presented::parse(format!("{good}a").as_bytes()).err(), Some(NotAKey::Mistyped));
    for foreign in
        ["", "aigw", "aigw-", "sk-123", "aigw-short-x!", "Aigw-012345678901-0", "aigw-01234567890é-"]
    {
        assert_eq!(Presented::parse(foreign.as_bytes()).err(), Some(NotAKey::Foreign), "{foreign}");
    }
}

#[test]
fn a_secret_never_prints() {
    let (key, record) = key(1);
    let secret = &key.text.expose_secret()[18..];
    let hash = String::from(record.hash.clone());
    let index = Index::new(STALE);
    index.apply([record.clone()]);
    let shown = format!(
        "{key:?} {record:?} {:?} {index:?} {:#} {:?}",
        Presented::parse(text(&key)).unwrap(),
        record.describe(now()),
        key.text.expose_secret().parse::<KeyId>().unwrap_err(),
    );
    assert!(!shown.contains(&secret[..8]), "{shown}");
    let parts: Vec<&str> = hash.split(':').skip(1).collect();
    assert!(parts.iter().all(|part| !shown.contains(part)), "{shown}");
    let broken = record.to_json().replace("sha256:", "md5:");
    let error = Record::from_json(broken.as_bytes()).unwrap_err().to_string();
    assert!(parts.iter().all(|part| !error.contains(part)) && error.contains("hash"), "{error}");
}

#[test]
fn a_record_survives_its_text_and_unknown_members_are_refused() {
    let (_, mut record) = key(1);
    record.grant = Grant {
        organisation: Some("acme".into()),
        team: Some("search".into()),
        expires: Some("2031-01-31T12:00:00Z".parse().unwrap()),
        models: Some(vec!["gpt-4o*".parse().unwrap(), "claude".parse().unwrap()]),
        sources: Some(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::1".parse().unwrap()]),
        metadata: BTreeMap::from([("ticket".into(), "42".into())]),
        quota: Some("small".into()),
        ..Grant::named("ci")
    };
    record.revoke(now());
    let json = record.to_json();
    assert_eq!(Record::from_json(json.as_bytes()).unwrap(), record);
    let unknown = json.replacen("\"grant\":{", "\"grant\":{\"weekdays\":[1],", 1);
    let error = Record::from_json(unknown.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("weekdays"), "{error}");
    let long = format!("{}{}", json, " ".repeat(MAX_RECORD));
    assert!(Record::from_json(long.as_bytes()).is_err());
    let shown = record.describe(now());
    assert_eq!((&shown["name"], &shown["status"]), (&"ci".into(), &"revoked".into()));
    assert!(shown.get("hash").is_none() && shown.get("grant").is_none());
}

#[test]
fn a_grant_that_makes_no_sense_is_refused_by_field() {
    let with = |change: &dyn Fn(&mut Grant)| {
        let mut grant = Grant::named("n");
        change(&mut grant);
        grant.check().unwrap_err().to_string()
    };
    assert!(with(&|grant| grant.name = " ".into()).contains("name is empty"));
    assert!(with(&|grant| grant.team = Some("a\nb".into())).contains("team"));
    assert!(with(&|grant| grant.organisation = Some("a\tb".into())).contains("organisation"));
    assert!(with(&|grant| grant.quota = Some("x".repeat(129))).contains("quota"));
    assert!(with(&|grant| grant.models = Some(vec!["m".parse().unwrap(); 257])).contains("models"));
    let value = |length: usize| {
        move |grant: &mut Grant| {
            grant.metadata.insert("k".into(), "x".repeat(length));
        }
    };
    assert!(with(&value(1025)).contains("metadata.k"));
    let much = |grant: &mut Grant| {
        grant.metadata.extend((0..100).map(|n| (n.to_string(), "x".repeat(1000))));
    };
    assert!(with(&much).contains("together"));
}

#[test]
fn networks_and_models() {
    let network = |text: &str| text.parse::<Network>();
    let contains = |text: &str, address: &str| network(text).unwrap().contains(address.parse().unwrap());
    assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
    assert!(contains("10.1.2.3", "10.1.2.3") && !contains("10.1.2.3", "10.1.2.4"));
    assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1") && contains("::ffff:10.0.0.0/104", "10.9.9.9"));
    assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
    assert!(contains("::/0", "::1") && !contains("::/0", "1.2.3.4"));
    assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "2001:db9::1"));
    for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/08", "host", "::/129"]
    {
        assert!(network(bad).unwrap_err().to_string().contains("is no network"), "{bad}");
    }
    let model = |text: &str| text.parse::<ModelPattern>();
    assert!(model("gpt-4o").unwrap().matches("gpt-4o") && !model("gpt-4o").unwrap().matches("gpt-4o-mini"));
    assert!(model("gpt-4o*").unwrap().matches("gpt-4o-mini") && model("*").unwrap().matches("any"));
    for bad in ["", "a*b", "**", "a\n"] {
        assert!(model(bad).is_err(), "{bad}");
    }
}

#[test]
fn restrictions_hold_and_their_absence_allows() {
    let (_, mut record) = key(1);
    assert!(record.allows_model("any") && record.allows_source(None));
    record.grant.models = Some(Vec::new());
    record.grant.sources = Some(Vec::new());
    let address = "10.0.0.1".parse().ok();
    assert!(!record.allows_model("any") && !record.allows_source(address));
    record.grant.sources = Some(vec!["10.0.0.0/8".parse().unwrap()]);
    assert!(record.allows_source(address) && !record.allows_source(None));
}

#[test]
fn unknown_revoked_and_expired_are_one_answer_and_the_log_tells_them_apart() {
    let (good, mut good_record) = key(1);
    let (revoked, mut revoked_record) = key(2);
    let (expired, mut expired_record) = key(3);
    let (unknown, _) = key(4);
    good_record.grant.expires = Some(Timestamp::of(now() + Duration::from_secs(1)));
    revoked_record.revoke(now());
    expired_record.grant.expires = Some(Timestamp::of(now()));
    // The same id, and another secret.
    let mut forged = random(1);
    forged[0] ^= 1;
    let forged = NewKey::generate(&forged);
    assert_eq!(forged.id, good.id);
    let (index, start) = index([good_record, revoked_record, expired_record]);
    let refusal = |key: &NewKey| index.verify(text(key), now(), start).unwrap_err();
    assert_eq!(index.verify(text(&good), now(), start).unwrap().id, good.id);
    for (key, reason) in [
        (&revoked, Reason::Revoked),
        (&expired, Reason::Expired),
        (&unknown, Reason::Unknown),
        (&forged, Reason::Unknown),
    ] {
        assert_eq!(refusal(key), Refusal::Refused(reason));
        assert_eq!(refusal(key).to_string(), "this key is not valid");
    }
    let later = now() + Duration::from_secs(1);
    assert_eq!(index.verify(text(&good), later, start).unwrap_err(), Refusal::Refused(Reason::Expired));
}

#[test]
fn a_revoked_key_with_a_wrong_secret_is_unknown() {
    let (revoked, mut record) = key(2);
    record.revoke(now());
    let mut forged = random(2);
    forged[31] ^= 1;
    let (index, start) = index([record]);
    let forged = NewKey::generate(&forged);
    assert_eq!(forged.id, revoked.id);
    // Nobody learns from the log either that an id they guessed was once there.
    let refusal = index.verify(text(&forged), now(), start).unwrap_err();
    assert_eq!(refusal, Refusal::Refused(Reason::Unknown));
}

#[test]
fn a_rotated_key_is_good_for_its_grace_and_no_longer() {
    let (old, mut record) = key(1);
    let new = NewKey::generate(&random(2));
    let fresh = record.rotate(&new, now(), Duration::from_secs(60));
    assert_eq!((fresh.rotated_from, record.rotated_to), (Some(old.id), Some(new.id)));
    assert_eq!(fresh.grant, record.grant);
    assert_eq!(record.standing(now()), Standing::Retiring);
    let (index, start) = index([record.clone(), fresh]);
    let valid =
        |key: &NewKey, after: u64| index.verify(text(key), now() + Duration::from_secs(after), start).is_ok();
    assert!(valid(&old, 59) && valid(&new, 59) && !valid(&old, 60) && valid(&new, 60));
    // Once more, with more grace: what was promised first holds.
    record.rotate(&NewKey::generate(&random(3)), now(), Duration::from_secs(600));
    assert_eq!(record.retires, Some(Timestamp::of(now() + Duration::from_secs(60))));
}

#[test]
fn without_the_store_keys_are_good_for_a_while_and_then_nobody_is_let_in() {
    let (good, record) = key(1);
    let (unknown, _) = key(2);
    let index = Index::new(STALE);
    let start = Instant::now();
    index.apply([record]);
    assert_eq!(index.verify(text(&good), now(), start).unwrap_err(), Refusal::Unavailable, "never heard of");
    index.confirm(start);
    assert!(index.verify(text(&good), now(), start + STALE).is_ok());
    let late = start + STALE + Duration::from_nanos(1);
    assert_eq!(index.verify(text(&good), now(), late).unwrap_err(), Refusal::Unavailable);
    assert_eq!(index.verify(text(&unknown), now(), late).unwrap_err(), Refusal::Unavailable);
    index.confirm(late);
    assert!(index.verify(text(&good), now(), late).is_ok());
}

/// Counted, not timed: what is looked for, hashed, compared and looked at is the same whatever is wrong with a key, whether or not
/// there are others.
#[test]
fn every_key_that_has_the_form_of_one_takes_the_same_steps() {
    let keys: Vec<_> = (0..5).map(key).collect();
    let [good, revoked, expired, rotated, wrong] = keys.as_slice() else { panic!("five") };
    let mut records: Vec<Record> = keys.iter().take(4).map(|(_, record)| record.clone()).collect();
    records[1].revoke(now());
    records[2].grant.expires = Some(Timestamp::of(now()));
    records[3].rotate(&key(9).0, now(), Duration::ZERO);
    // The id of a key that is there, and another secret.
    let mut other = wrong.1.clone();
    other.hash = good.1.hash.clone();
    records.push(other);
    let (full, start) = index(records);
    let (empty, _) = index([]);
    let unknown = key(7).0;
    let steps = |index: &Index, key: &NewKey| {
        drop(steps::taken());
        let verified = index.verify(text(key), now(), start).map(drop);
        (verified, steps::taken())
    };
    let (valid, expected) = steps(&full, &good.0);
    assert_eq!(valid, Ok(()));
    assert_eq!(expected, [Step::Find(12), Step::Hash(67), Step::Compare(32), Step::Stand]);
    for (index, key, reason) in [
        (&full, &revoked.0, Reason::Revoked),
        (&full, &expired.0, Reason::Expired),
        (&full, &rotated.0, Reason::Expired),
        (&full, &wrong.0, Reason::Unknown),
        (&full, &unknown, Reason::Unknown),
        (&empty, &unknown, Reason::Unknown),
    ] {
        assert_eq!(steps(index, key), (Err(Refusal::Refused(reason)), expected.clone()), "{reason:?}");
    }
}

#[test]
fn the_state_of_the_store_is_told() {
    let (index, start) = (Index::new(STALE), Instant::now());
    let told = |after: u64| index.status(start + Duration::from_secs(after)).to_string();
    assert_eq!(told(0), "the keys have not come from their store yet");
    index.lost("it is not there".to_owned());
    assert!(told(5).contains("never was there") && told(5).ends_with("(it is not there)"), "{}", told(5));
    index.replace([key(1).1, key(2).1]);
    index.confirm(start);
    assert_eq!(told(5), "2 keys are in step with their store");
    index.lost("it is gone".to_owned());
    assert!(told(5).contains("away for 5 s; the 2 keys that are known serve for 595 s more"), "{}", told(5));
    assert!(told(600).contains("nobody with a key is let in any more"), "{}", told(600));
    let status = index.status(start + STALE);
    assert_eq!((status.keys, status.age, status.serves_for), (2, Some(STALE), None));
}

#[test]
fn keys_that_are_taken_out_take_no_others_with_them() {
    let keys: Vec<_> = (0..2_000).map(key).collect();
    let (index, start) = index(keys.iter().map(|(_, record)| record.clone()));
    let ids: Vec<_> = keys.iter().step_by(3).map(|(key, _)| key.id).collect();
    index.remove(&ids);
    for (number, (key, _)) in keys.iter().enumerate() {
        assert_eq!(index.verify(text(key), now(), start).is_ok(), number % 3 != 0, "{number}");
    }
}

#[test]
fn readers_see_a_key_throughout_while_everything_is_replaced() {
    let (good, record) = key(1);
    let (index, start) = index([record.clone()]);
    let index = Arc::new(index);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (index, stop) = (Arc::clone(&index), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut seed = 10;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                index.replace([record.clone(), key(seed).1]);
                index.apply([key(seed + 1).1]);
                seed += 2;
            }
        })
    };
    for _ in 0..2_000 {
        assert!(index.verify(text(&good), now(), start).is_ok());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
}

proptest! {
    #[test]
    fn any_key_that_is_made_is_read_again_and_no_other_text_passes_for_it(
        random in prop::array::uniform32(any::<u8>()), rest in prop::array::uniform32(any::<u8>()),
        junk in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut all = [0; 64];
        all[..32].copy_from_slice(&random);
        all[32..].copy_from_slice(&rest);
        let key = NewKey::generate(&all);
        let read = Presented::parse(text(&key)).unwrap();
        prop_assert_eq!(read.id(), key.id.as_str().as_bytes());
        let (index, start) = index([Record::new(&key, Grant::named("k"), now()).unwrap()]);
        prop_assert!(index.verify(text(&key), now(), start).is_ok());
        prop_assert!(index.verify(&junk, now(), start).is_err());
        let mut near = text(&key).to_vec();
        near.extend(&junk);
        prop_assert_eq!(index.verify(&near, now(), start).is_ok(), junk.is_empty());
    }

    #[test]
    fn an_index_holds_what_was_last_said_of_each_key(
        changes in prop::collection::vec((0_u64..8, any::<bool>(), 0..6), 0..60)
    ) {
        let (index, start) = index([]);
        let mut model = BTreeMap::new();
        for (seed, revoked, how) in changes {
            let (_, mut record) = key(seed);
            if how < 2 {
                model.remove(&seed);
                index.remove(&[record.id]);
                continue;
            }
            if revoked {
                record.revoke(now());
            }
            if how == 2 {
                model.clear();
                index.replace([record]);
            } else {
                index.apply([record]);
            }
            model.insert(seed, revoked);
        }
        prop_assert_eq!(index.len(), model.len());
        for seed in 0..8 {
            let expected = match model.get(&seed) {
                Some(false) => None,
                Some(true) => Some(Refusal::Refused(Reason::Revoked)),
                None => Some(Refusal::Refused(Reason::Unknown)),
            };
            prop_assert_eq!(index.verify(text(&key(seed).0), now(), start).err(), expected);
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,80}") {
        let _ = Presented::parse(&bytes);
        let _ = Record::from_json(&bytes);
        let _ = text.parse::<Network>();
        let _ = text.parse::<ModelPattern>();
        if let Ok(time) = text.parse::<Timestamp>() {
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }
}

#[test]
fn a_network_around_an_address_is_that_of_its_prefix() {
    for (text, network) in [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/0", "0.0.0.0/0"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("::1/0", "::/0"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
    ] {
        assert_eq!(Network::around(text).unwrap(), network.parse().unwrap(), "{text}");
    }
    assert!(Network::around("10.0.0.0/33").is_err() && Network::around("home").is_err());
}
