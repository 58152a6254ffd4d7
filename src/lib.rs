//! syncfs: one directory on two hosts. Start reading at `docs/architecture.md`.

pub mod api;
pub mod cli;
pub mod engine;
pub mod fs;
pub mod model;
pub mod store;
pub mod wire;
