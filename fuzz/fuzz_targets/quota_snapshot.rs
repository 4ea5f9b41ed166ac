#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ai_gateway_fuzz::quota_snapshot::run(data));
