//! The input is a text that is shown as a key, where a key is known that was made of its first bytes.

use std::time::{Duration, Instant, SystemTime};

use ai_gateway::keys::{Grant, Index, KeyId, NewKey, Network, Presented, Record};
use secrecy::ExposeSecret;

pub fn run(data: &[u8]) {
    let mut random = [0; 64];
    for (place, byte) in random.iter_mut().zip(data) {
        *place = *byte;
    }
    let key = NewKey::generate(&random);
    let text = key.text.expose_secret().as_bytes();
    let (wall, start) = (SystemTime::UNIX_EPOCH, Instant::now());
    let index = Index::new(Duration::from_secs(1));
    index.replace([Record::new(&key, Grant::named("k"), wall).expect("a record")]);
    index.confirm(start);
    assert!(index.verify(text, wall, start).is_ok());
    assert_eq!(index.verify(data, wall, start).is_ok(), data == text);
    // One byte of it elsewhere, and a part of it.
    if let [at, with, ..] = data {
        let (mut changed, at) = (text.to_vec(), usize::from(*at) % text.len());
        changed[at] = *with;
        assert_eq!(index.verify(&changed, wall, start).is_ok(), changed == text);
        assert!(index.verify(&text[..at], wall, start).is_err());
    }
    let _ = Presented::parse(data).map(|presented| format!("{presented:?}"));
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<KeyId>();
        if let Ok(network) = text.parse::<Network>() {
            assert_eq!(network.to_string().parse::<Network>(), Ok(network));
        }
    }
}
