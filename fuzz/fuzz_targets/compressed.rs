#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| syncfs_fuzz::compressed::run(input));
