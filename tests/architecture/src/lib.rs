//! The architecture as rules that a machine can check: which crate may depend on which, that modules of a crate form no
//! cycles, what the pure core must not touch, under which licences we build, and that the attacks we name have their tests.
//! The tests apply them to the workspace.

pub mod attacks;
pub mod layers;
pub mod licences;
pub mod modules;
pub mod sources;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};

/// The workspace's root directory.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}

/// Everything cargo knows of the workspace and its locked dependencies, for every platform.
///
/// # Errors
/// When `cargo metadata` fails.
pub fn metadata() -> Result<Metadata> {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).exec().context("cargo metadata")
}
