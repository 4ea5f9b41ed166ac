//! All targets in one executable, which is quicker to build than one for each. `FUZZ_TARGET` names the one to run.
#![no_main]

use std::sync::LazyLock;

use ai_gateway_fuzz::{Run, TARGETS, target};

static CHOSEN: LazyLock<Run> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        panic!("FUZZ_TARGET is {name:?}; choose one of {:?}", TARGETS.map(|(name, _)| name))
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHOSEN(data));
