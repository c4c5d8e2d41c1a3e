#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| aot_readers::master::proxy_header(data));
