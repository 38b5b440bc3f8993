#![no_main]

#[path = "../targets/translation.rs"]
mod translation;

libfuzzer_sys::fuzz_target!(|data: &[u8]| translation::check(data));
