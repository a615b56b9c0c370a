//! Debian and Ubuntu.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    product::{HOMEPAGE, MAINTAINER, Product, output_directory},
    tree::{Places, Tree, installers},
};
use crate::cargo;

const PLACES: Places = Places { zsh: "usr/share/zsh/vendor-completions/_partyline" };

const DESCRIPTION: &str = " Friends join with an invite link, and their games find each other as if they
 sat in one room. Partyline finds the fastest way between each two computers,
 directly where the networks allow it, and encrypts it with WireGuard.
";

/// Makes the package, with its intermediate files below `work`, and returns its path.
pub fn make(product: &Product, programs: &Path, work: &Path) -> Result<PathBuf> {
    let tree = Tree::of(product, programs, work.join("tree"), &PLACES)?;
    documents(product, &tree)?;
    tree.finish()?;
    let architecture = cargo::output(Command::new("dpkg").arg("--print-architecture"))?;
    let control = control(product, &tree, work, &architecture)?;
    let sums = checksums(&tree)?;
    tree.write("DEBIAN/control", control)?;
    tree.write("DEBIAN/md5sums", sums)?;
    for script in ["postinst", "prerm", "postrm"] {
        tree.file(&format!("deb/{script}"), &format!("DEBIAN/{script}"))?;
        cargo::output(Command::new("chmod").arg("755").arg(tree.root.join("DEBIAN").join(script)))?;
    }
    let name = format!("{}_{}-{}_{architecture}.deb", product.name, product.version(), product.revision);
    let package = output_directory()?.join(name);
    let mut command = Command::new("dpkg-deb");
    command.args(if product.quick { ["-Zgzip", "-z1"] } else { ["-Zxz", "-z6"] });
    command.args(["--root-owner-group", "--build"]).arg(&tree.root).arg(&package);
    cargo::output(command.env("SOURCE_DATE_EPOCH", &product.epoch))?;
    Ok(package)
}

fn control(product: &Product, tree: &Tree, work: &Path, architecture: &str) -> Result<String> {
    let mut depends = libraries(tree, work)?;
    let mut recommends = String::from("polkitd");
    if product.app {
        // Loaded at run time, so that the program's headers do not name it.
        depends += ", libayatana-appindicator3-1";
        recommends += ", desktop-file-utils, xdg-utils";
    }
    let (name, other, summary, version) = (product.name, product.other, product.summary, product.version());
    // The app's package does all that the other does.
    let provides = if product.app {
        format!("Provides: {other} (= {version}-{})\n", product.revision)
    } else {
        String::new()
    };
    let size: u64 = tree.files()?.iter().map(|file| size(&tree.root.join(file))).sum::<Result<u64>>()?;
    Ok(format!(
        "Package: {name}
Version: {version}-{revision}
Architecture: {architecture}
Maintainer: {MAINTAINER}
Section: net
Priority: optional
Homepage: {HOMEPAGE}
Installed-Size: {size}
Depends: {depends}
Recommends: {recommends}
Conflicts: {other}
Replaces: {other}
{provides}Description: {summary}
{DESCRIPTION}",
        revision = product.revision
    ))
}

/// Kibibytes.
fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.len().div_ceil(1024))
}

/// The packages of the libraries that the programs are linked with, as `dpkg-shlibdeps` finds them.
fn libraries(tree: &Tree, work: &Path) -> Result<String> {
    let place = work.join("libraries");
    fs::create_dir_all(place.join("debian"))?;
    fs::write(place.join("debian/control"), "Source: partyline\n\nPackage: partyline\nArchitecture: any\n")?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.arg("-O").args(tree.programs.iter().map(|path| format!("-e{}", path.display())));
    let said = cargo::output(command.current_dir(place))?;
    let depends = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    depends.map(str::to_owned).context("dpkg-shlibdeps names no library")
}

fn documents(product: &Product, tree: &Tree) -> Result<()> {
    let name = product.name;
    let overrides = fs::read_to_string(installers().join("deb/lintian-overrides"))?;
    tree.write(&format!("usr/share/lintian/overrides/{name}"), overrides.replace("@PACKAGE@", name))?;
    tree.write(&format!("usr/share/doc/{name}/copyright"), copyright()?)?;
    let changes = format!(
        "{name} ({}-{}) stable; urgency=medium\n\n  * See {HOMEPAGE}/releases.\n\n -- {MAINTAINER}  {}\n",
        product.version(),
        product.revision,
        product.date("+%a, %d %b %Y %H:%M:%S +0000")?
    );
    let path = format!("usr/share/doc/{name}/changelog.Debian");
    tree.write(&path, changes)?;
    cargo::output(Command::new("gzip").arg("-9n").arg(tree.root.join(path))).map(drop)
}

/// The licences, as Debian wants them written.
fn copyright() -> Result<String> {
    let mit = fs::read_to_string(cargo::root().join("LICENSE-MIT"))?;
    let holder =
        mit.lines().find(|line| line.starts_with("Copyright")).context("LICENSE-MIT names no holder")?;
    let body = mit.lines().skip_while(|line| !line.starts_with("Permission"));
    let body = body.map(|line| if line.is_empty() { " .\n".into() } else { format!(" {line}\n") });
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Partyline
Source: {HOMEPAGE}

Files: *
Copyright: {}
License: Expat or Apache-2.0

License: Expat
{}
License: Apache-2.0
 On Debian systems, the text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
",
        holder.trim_start_matches("Copyright (c) "),
        body.collect::<String>()
    ))
}

fn checksums(tree: &Tree) -> Result<String> {
    let sums = cargo::output(Command::new("md5sum").args(tree.files()?).current_dir(&tree.root))?;
    Ok(sums + "\n")
}
