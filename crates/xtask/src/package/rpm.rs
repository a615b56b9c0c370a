//! Fedora and openSUSE.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    product::{HOMEPAGE, Product, output_directory},
    tree::{Places, Tree, installers},
};
use crate::cargo;

const PLACES: Places = Places { zsh: "usr/share/zsh/site-functions/_partyline" };

/// Makes the package, with its intermediate files below `work`, and returns its path.
pub fn make(product: &Product, programs: &Path, work: &Path) -> Result<PathBuf> {
    let tree = Tree::of(product, programs, work.join("tree"), &PLACES)?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let text = fs::read(cargo::root().join(licence))?;
        tree.write(&format!("usr/share/licenses/{}/{licence}", product.name), text)?;
    }
    tree.finish()?;
    let files: String = tree.files()?.iter().map(|file| format!("/{file}\n")).collect();
    fs::write(work.join("tree.files"), format!("%defattr(-, root, root, -)\n{files}"))?;
    let architecture = std::env::consts::ARCH;
    let name = format!("{}-{}-{}.{architecture}.rpm", product.name, product.version(), product.revision);
    let place = output_directory()?;
    let mut command = Command::new("rpmbuild");
    command.args(["-bb", "--quiet", "--target", architecture]);
    let (version, revision) = (product.version(), product.revision.to_string());
    let (tree, place_, top) = (utf8(&tree.root)?, utf8(&place)?, utf8(work)?);
    for (key, value) in [
        ("package", product.name),
        ("other", product.other),
        ("summary", product.summary),
        ("version_", &version),
        ("revision", &revision),
        ("homepage", HOMEPAGE),
        ("tree", tree),
        ("_topdir", top),
        ("_rpmdir", place_),
        ("_rpmfilename", &name),
        ("_binary_payload", if product.quick { "w1.gzdio" } else { "w19.zstdio" }),
    ] {
        command.args(["--define", &format!("{key} {value}")]);
    }
    if product.app {
        command.args(["--define", "with_app 1"]);
    }
    cargo::run(command.arg(installers().join("partyline.spec")).env("SOURCE_DATE_EPOCH", &product.epoch))?;
    Ok(place.join(name))
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
