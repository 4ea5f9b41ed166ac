#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ai_gateway_fuzz::config_cache::run(data));
