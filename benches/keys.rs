//! What a key costs a request, with 100,000 of them.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use ai_gateway::keys::{Grant, Index, NewKey, Record};
use criterion::{Criterion, criterion_group, criterion_main};
use secrecy::ExposeSecret;

const KEYS: u64 = 100_000;

fn key(seed: u64) -> NewKey {
    let mut random = [0; 64];
    for (index, part) in random.chunks_mut(32).enumerate() {
        let source = [seed.to_be_bytes(), index.to_be_bytes()].concat();
        part.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, &source).as_ref());
    }
    NewKey::generate(&random)
}

fn lookups(c: &mut Criterion) {
    let (wall, start) = (SystemTime::now(), Instant::now());
    let index = Index::new(Duration::from_secs(86_400));
    let record = |seed| Record::new(&key(seed), Grant::named("k"), wall).ok();
    index.replace((0..KEYS).filter_map(|seed| {
        let mut record = record(seed)?;
        if seed % 2 == 1 {
            record.revoke(wall);
        }
        Some(record)
    }));
    assert_eq!(index.len() as u64, KEYS);
    index.confirm(start);
    let texts = |seeds: &mut dyn Iterator<Item = u64>| -> Vec<String> {
        seeds.map(|seed| key(seed).text.expose_secret().to_owned()).collect()
    };
    let mut group = c.benchmark_group("keys");
    for (name, texts) in [
        ("valid", texts(&mut (0..KEYS).step_by(100))),
        ("revoked", texts(&mut (1..KEYS).step_by(100))),
        ("unknown", texts(&mut (KEYS..KEYS + 1000))),
    ] {
        let mut next = texts.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| {
                let text = next.next().map(String::as_bytes).unwrap_or_default();
                black_box(index.verify(black_box(text), wall, start)).is_ok()
            });
        });
    }
    let mut seed = KEYS * 2;
    group.bench_function("apply", |b| {
        b.iter(|| {
            seed += 1;
            index.apply(record(seed));
        });
    });
    group.finish();
}

// A look-up is well below a microsecond: a few seconds hold millions of them.
criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(50);
    targets = lookups
}
criterion_main!(benches);
